"""Writes a larger Llama of random weights, without ever holding it."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np

from . import llama

HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, VOCAB = 1024, 2816, 16, 4, 64000


def write(folder: Path, layers: int, tokenizer_from: Path) -> int:
    """Writes the model in bf16; gives the size of its weights in bytes.

    With 24 layers it has some 420 million parameters.
    """
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(tokenizer_from / name, folder / name)
    config = json.loads((tokenizer_from / "config.json").read_text())
    config.update(
        hidden_size=HIDDEN, intermediate_size=INTERMEDIATE, num_hidden_layers=layers,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=HIDDEN // HEADS,
        vocab_size=VOCAB, tie_word_embeddings=False, dtype="bfloat16",
    )  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))

    header, end = {}, 0
    for name, shape in _shapes(layers).items():
        size = int(np.prod(shape)) * 2
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    # bf16 is the upper half of an f32.
    numbers = np.random.default_rng(0).normal(0, 0.02, 1 << 20).astype(np.float32)
    block = (numbers.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        left = end
        while left:
            left -= file.write(block[:left])
    return end


def _shapes(layers: int) -> dict[str, list[int]]:
    kv = HIDDEN // HEADS * KV_HEADS
    shapes = {"model.embed_tokens.weight": [VOCAB, HIDDEN]}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        shapes |= {
            prefix + "input_layernorm.weight": [HIDDEN],
            prefix + "self_attn.q_proj.weight": [HIDDEN, HIDDEN],
            prefix + "self_attn.k_proj.weight": [kv, HIDDEN],
            prefix + "self_attn.v_proj.weight": [kv, HIDDEN],
            prefix + "self_attn.o_proj.weight": [HIDDEN, HIDDEN],
            prefix + "post_attention_layernorm.weight": [HIDDEN],
            prefix + "mlp.gate_proj.weight": [INTERMEDIATE, HIDDEN],
            prefix + "mlp.up_proj.weight": [INTERMEDIATE, HIDDEN],
            prefix + "mlp.down_proj.weight": [HIDDEN, INTERMEDIATE],
        }
    shapes |= {"model.norm.weight": [HIDDEN], "lm_head.weight": [VOCAB, HIDDEN]}
    return shapes


def make_small(folder: Path) -> Path:
    """A small Llama whose tokenizer and configuration the large one takes over."""
    llama.make(llama.Llama("template"), folder)
    return folder
