"""Writes GGUF files of random Llamas with gguf-py, permuted as llama.cpp's converter does."""

import json
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from transformers import LlamaForCausalLM

from .llama import CHAT_TEMPLATE, VOCAB_SIZE, make_tokenizer

NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LAYER_NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}


def gguf_name(name: str) -> str:
    """The tensor's name in GGUF of its name in a Hugging Face checkpoint."""
    if name in NAMES:
        return NAMES[name]
    layer, rest = name.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{LAYER_NAMES[rest]}"


def permute(weights: np.ndarray, heads: int) -> np.ndarray:
    """Rows of Q and K from Hugging Face's order of a head's halves to Meta's pairs."""
    rows, columns = weights.shape
    halves = weights.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def unpermute(weights: np.ndarray, heads: int) -> np.ndarray:
    """Undoes `permute`."""
    rows, columns = weights.shape
    pairs = weights.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def heads_of(name: str, config) -> int | None:
    """How many heads' rows a tensor's permutation spans; none for most tensors."""
    if name.endswith("q_proj.weight"):
        return config.num_attention_heads
    if name.endswith("k_proj.weight"):
        return config.num_key_value_heads
    return None


def random_blocks(kind: Type, rows: int, columns: int, seed: int) -> np.ndarray:
    """Random bytes that are valid blocks of a type gguf-py can read but not write.

    The f16 factors among them are set to small numbers: random ones would be
    infinite or not a number in places.
    """
    block_size, type_size = gguf.GGML_QUANT_SIZES[kind]
    dice = np.random.default_rng(seed)
    blocks = dice.integers(0, 256, (rows * columns // block_size, type_size), dtype=np.uint8)
    factors = {Type.Q4_K: (0, 2), Type.Q5_K: (0, 2), Type.Q6_K: (type_size - 2,)}[kind]
    for at in factors:
        numbers = dice.uniform(1e-4, 1e-3, len(blocks)).astype(np.float16)
        blocks[:, at : at + 2] = numbers.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(rows, columns // block_size * type_size)


def write(path: Path, model: LlamaForCausalLM, kind: Type) -> dict[str, np.ndarray]:
    """Writes the file; gives the f32 weights that are in it, by Hugging Face name.

    Matrices are stored as `kind`, all else as f32.
    """
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer)

    stored = {}
    for seed, (name, parameter) in enumerate(model.named_parameters()):
        values = parameter.detach().float().numpy()
        if values.ndim == 1:
            writer.add_tensor(gguf_name(name), values)
            stored[name] = values
            continue
        heads = heads_of(name, config)
        values = permute(values, heads) if heads else values
        if kind in (Type.Q4_K, Type.Q5_K, Type.Q6_K):
            raw = random_blocks(kind, *values.shape, seed)
        else:
            raw = gguf.quants.quantize(values, kind)
        writer.add_tensor(gguf_name(name), raw, raw_dtype=kind)
        values = gguf.quants.dequantize(raw, kind)
        stored[name] = unpermute(values, heads) if heads else values
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stored


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    tokenizer = make_tokenizer()
    special = set(tokenizer.added_tokens_encoder)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    names, kinds = [], []
    for token in range(VOCAB_SIZE):
        name = tokenizer.convert_ids_to_tokens(token) if token < len(tokenizer) else None
        # llama.cpp's converter fills up a vocabulary smaller than the embedding.
        names.append(name or f"[PAD{token}]")
        if name is None:
            kinds.append(gguf.TokenType.UNUSED)
        else:
            kinds.append(gguf.TokenType.CONTROL if name in special else gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(names)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
