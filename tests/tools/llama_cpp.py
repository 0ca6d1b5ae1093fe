"""llama.cpp as the reference: the ids it gives for texts.

Run as a program it loads one GGUF file and answers for it, so that an abort of
llama.cpp ends no more than that process:

    python -m tools.llama_cpp MODEL.gguf < TEXTS.json > IDS.json
"""

import json
import sys
import urllib.request
from pathlib import Path

from .programs import run


def tokenise(gguf: Path, texts: list[str]) -> list[list[int]]:
    """Ids of each text, with the special tokens the model adds, special tokens parsed."""
    result = run(
        sys.executable, "-m", "tools.llama_cpp", gguf,
        input=json.dumps(texts), cwd=Path(__file__).resolve().parents[1],
    )  # fmt: skip
    return json.loads(result.stdout.splitlines()[-1])


def _answer(gguf: str, texts: list[str]) -> list[list[int]]:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = gguf
    params.n_ctx = 64
    params.n_parallel = 1
    params.warmup = False
    params.port = 0
    server = xllamacpp.Server(params)
    ids = []
    for text in texts:
        body = {"content": text, "add_special": True, "parse_special": True}
        request = urllib.request.Request(
            f"{server.listening_address}/tokenize",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            ids.append(json.load(response)["tokens"])
    return ids


if __name__ == "__main__":
    print(json.dumps(_answer(sys.argv[1], json.load(sys.stdin))), flush=True)
