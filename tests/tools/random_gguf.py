"""A GGUF file of random Q8_0 weights in the shape of a config.json, to measure with.

    python -m tools.random_gguf CONFIG_JSON OUT.gguf

Its vocabulary is a token for each byte, one merge and padding: enough for every
loader, and nothing to say. Weights pass through one matrix at a time.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from . import vocabularies

BLOCK = 32
DEVIATION = 0.02
"""The standard deviation that Llamas are initialised with."""


def write(path: Path, config: dict, seed: int = 0) -> None:
    """Writes the file; the same seed makes the same weights."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    layers, vocabulary = config["num_hidden_layers"], config["vocab_size"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_vocab_size(vocabulary)
    _add_tokenizer(writer, vocabulary)
    matrices = {"token_embd": (vocabulary, hidden)}
    if not config["tie_word_embeddings"]:
        matrices["output"] = (vocabulary, hidden)
    of_layer = {
        "attn_q": (heads * head_dim, hidden),
        "attn_k": (kv_heads * head_dim, hidden),
        "attn_v": (kv_heads * head_dim, hidden),
        "attn_output": (hidden, heads * head_dim),
        "ffn_gate": (inner, hidden),
        "ffn_up": (inner, hidden),
        "ffn_down": (hidden, inner),
    }
    norms = ["output_norm"]
    for layer in range(layers):
        matrices |= {f"blk.{layer}.{name}": shape for name, shape in of_layer.items()}
        norms += [f"blk.{layer}.attn_norm", f"blk.{layer}.ffn_norm"]
    for name in norms:
        writer.add_tensor(f"{name}.weight", np.ones(hidden, np.float32))
    for name, (rows, columns) in matrices.items():
        of_row = columns // BLOCK * (BLOCK + 2)
        writer.add_tensor_info(
            f"{name}.weight", (rows, of_row), np.dtype(np.uint8), rows * of_row, Type.Q8_0
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    # Tensors follow in the order in which they were announced.
    for _ in norms:
        writer.write_tensor_data(np.ones(hidden, np.float32))
    dice = np.random.default_rng(seed)
    for rows, columns in matrices.values():
        writer.write_tensor_data(_blocks(dice, rows, columns))
    writer.close()


def _blocks(dice: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Rows of Q8_0: an f16 scale and 32 int8 of even distribution each."""
    blocks = np.empty((rows * columns // BLOCK, 2 + BLOCK), np.uint8)
    quants = dice.integers(-127, 128, (len(blocks), BLOCK), dtype=np.int8)
    deviation = np.sqrt((255**2 - 1) / 12)
    scale = np.float16(DEVIATION / deviation)
    blocks[:, :2] = np.frombuffer(scale.tobytes(), np.uint8)
    blocks[:, 2:] = quants.view(np.uint8)
    return blocks.reshape(rows, -1)


def _add_tokenizer(writer: gguf.GGUFWriter, vocabulary: int) -> None:
    tokens = list(vocabularies.byte_level_alphabet().values())
    left, right = tokens[ord("a")], tokens[ord("b")]
    tokens += [left + right, "<s>", "</s>"]
    kinds = [gguf.TokenType.NORMAL] * (len(tokens) - 2) + [gguf.TokenType.CONTROL] * 2
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    padding = range(len(tokens), vocabulary)
    writer.add_token_list(tokens + [f"[PAD{token}]" for token in padding])
    writer.add_token_types(kinds + [gguf.TokenType.UNUSED] * len(padding))
    writer.add_token_merges([f"{left} {right}"])
    writer.add_bos_token_id(len(tokens) - 2)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(False)


if __name__ == "__main__":
    write(Path(sys.argv[2]), json.loads(Path(sys.argv[1]).read_text()))
