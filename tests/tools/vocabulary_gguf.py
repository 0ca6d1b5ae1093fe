"""GGUF files of one tiny random layer around a real vocabulary."""

from pathlib import Path

import gguf
import numpy as np

from . import vocabularies

HIDDEN = 32
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = (int(kind) for kind in gguf.TokenType)


def _tiny_model(path: Path, tokens: int) -> gguf.GGUFWriter:
    """A writer with everything but the tokenizer; `_finish` writes it out."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(HIDDEN)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(tokens)
    random = np.random.default_rng(0)

    def add(name, *shape):
        writer.add_tensor(name, random.normal(0, 0.02, shape).astype(np.float32))

    add("token_embd.weight", tokens, HIDDEN)
    add("output_norm.weight", HIDDEN)
    for name in ["attn_norm", "ffn_norm"]:
        add(f"blk.0.{name}.weight", HIDDEN)
    for name in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]:
        add(f"blk.0.{name}.weight", HIDDEN, HIDDEN)
    return writer


def _finish(writer: gguf.GGUFWriter):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def sentencepiece(path: Path, *, add_space_prefix: bool = True, user_defined: list[str] = ()):
    """With Mistral 7B's SentencePiece vocabulary, as llama.cpp's converter writes it."""
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(str(vocabularies.sentencepiece_model()))
    tokens, scores, kinds = [], [], []
    for id in range(model.vocab_size()):
        tokens.append(model.id_to_piece(id))
        scores.append(model.get_score(id))
        kinds.append(
            UNKNOWN if model.is_unknown(id)
            else CONTROL if model.is_control(id)
            else UNUSED if model.is_unused(id)
            else BYTE if model.is_byte(id)
            else NORMAL
        )  # fmt: skip
    for token in user_defined:
        tokens.append(token)
        scores.append(-1000.0)
        kinds.append(USER_DEFINED)
    writer = _tiny_model(path, len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(model.bos_id())
    writer.add_eos_token_id(model.eos_id())
    writer.add_unk_token_id(model.unk_id())
    if not add_space_prefix:
        writer.add_add_space_prefix(False)
    _finish(writer)


def llama3(path: Path):
    """With Llama 3.1's byte-level vocabulary."""
    alphabet = vocabularies.byte_level_alphabet()

    def text(token: bytes) -> str:
        return "".join(alphabet[byte] for byte in token)

    ranks = vocabularies.llama3_ranks()
    plain = [text(token) for token, _ in sorted(ranks.items(), key=lambda item: item[1])]
    specials = vocabularies.llama3_specials()
    writer = _tiny_model(path, len(plain) + len(specials))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(plain + specials)
    writer.add_token_types([NORMAL] * len(plain) + [CONTROL] * len(specials))
    merges = vocabularies.merges_of(ranks)
    writer.add_token_merges([f"{text(left)} {text(right)}" for left, right in merges])
    writer.add_bos_token_id(len(plain))
    writer.add_eos_token_id(len(plain) + specials.index("<|eot_id|>"))
    _finish(writer)


def with_other_splits(source: Path, path: Path, pre: str, *, add_bos: bool, add_eos: bool):
    """The byte-level vocabulary of another GGUF, its text split by another expression."""
    fields = gguf.GGUFReader(source).fields

    def value(name):
        return fields[f"tokenizer.ggml.{name}"].contents()

    tokens = value("tokens")
    writer = _tiny_model(path, len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(value("token_type"))
    writer.add_token_merges(value("merges"))
    writer.add_bos_token_id(value("bos_token_id"))
    writer.add_eos_token_id(value("eos_token_id"))
    writer.add_add_bos_token(add_bos)
    writer.add_add_eos_token(add_eos)
    _finish(writer)
