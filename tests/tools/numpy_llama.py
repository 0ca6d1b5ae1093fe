"""Small Llamas written and computed with numpy alone: no other library's idea of one."""

import json
import math
from pathlib import Path

import numpy as np
import tokenizers
from safetensors.numpy import save_file

VOCAB_SIZE = 300
"""A byte-level alphabet, three special tokens, and rows that no token has."""


def write(folder: Path, seed: int = 0, **changes) -> dict:
    """Writes config.json, model.safetensors and a tokenizer; gives the config."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": 96,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "float32",
        **changes,
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(_weights(config, seed), folder / "model.safetensors")
    _tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    )
    return config


def _weights(config: dict, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    hidden, inner, head_dim = (config[k] for k in ("hidden_size", "intermediate_size", "head_dim"))
    query = config["num_attention_heads"] * head_dim
    kv = config["num_key_value_heads"] * head_dim
    shapes = {
        "self_attn.q_proj": (query, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, query),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }

    def matrix(rows, columns):
        return (generator.standard_normal((rows, columns)) / math.sqrt(columns)).astype(np.float32)

    def norm():
        return generator.uniform(0.5, 1.5, hidden).astype(np.float32)

    weights = {"model.embed_tokens.weight": matrix(config["vocab_size"], hidden) * 8}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        weights[prefix + "input_layernorm.weight"] = norm()
        weights[prefix + "post_attention_layernorm.weight"] = norm()
        for name, shape in shapes.items():
            weights[f"{prefix}{name}.weight"] = matrix(*shape)
            if config["attention_bias" if "attn" in name else "mlp_bias"]:
                bias = 0.3 * generator.standard_normal(shape[0])
                weights[f"{prefix}{name}.bias"] = bias.astype(np.float32)
    weights["model.norm.weight"] = norm()
    if not config["tie_word_embeddings"]:
        weights["lm_head.weight"] = matrix(config["vocab_size"], hidden)
    return weights


def _tokenizer() -> tokenizers.Tokenizer:
    special = ["<s>", "</s>", "<unk>"]
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(special + alphabet)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return tokenizer


def logits(config: dict, weights: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """The logits of every position, in double precision."""
    weights = {name: value.astype(np.float64) for name, value in weights.items()}
    head_dim, heads = config["head_dim"], config["num_attention_heads"]
    group = heads // config["num_key_value_heads"]
    length = len(ids)
    angles = np.outer(np.arange(length), _frequencies(config))
    causal = np.tril(np.ones((length, length), bool))

    def linear(name, x):
        y = x @ weights[name + ".weight"].T
        return y + weights[name + ".bias"] if name + ".bias" in weights else y

    def norm(name, x):
        mean = (x * x).mean(-1, keepdims=True)
        return x / np.sqrt(mean + config["rms_norm_eps"]) * weights[name + ".weight"]

    def heads_of(x):
        return x.reshape(length, -1, head_dim).swapaxes(0, 1)

    def rotate(x):
        first, second = np.split(x, 2, axis=-1)
        cos, sin = np.cos(angles), np.sin(angles)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)

    x = weights["model.embed_tokens.weight"][ids]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        h = norm(prefix + "input_layernorm", x)
        query = rotate(heads_of(linear(prefix + "self_attn.q_proj", h)))
        key = rotate(heads_of(linear(prefix + "self_attn.k_proj", h))).repeat(group, 0)
        value = heads_of(linear(prefix + "self_attn.v_proj", h)).repeat(group, 0)
        scores = np.where(causal, query @ key.swapaxes(1, 2) / math.sqrt(head_dim), -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        mixed = (scores @ value).swapaxes(0, 1).reshape(length, -1)
        x = x + linear(prefix + "self_attn.o_proj", mixed)
        h = norm(prefix + "post_attention_layernorm", x)
        gate = linear(prefix + "mlp.gate_proj", h)
        gated = gate / (1 + np.exp(-gate)) * linear(prefix + "mlp.up_proj", h)
        x = x + linear(prefix + "mlp.down_proj", gated)
    return linear("lm_head", norm("model.norm", x))


def _frequencies(config: dict) -> np.ndarray:
    head_dim, scaling = config["head_dim"], config["rope_scaling"]
    plain = config["rope_theta"] ** -(np.arange(0, head_dim, 2) / head_dim)
    if scaling is None:
        return plain
    if scaling["rope_type"] == "linear":
        return plain / scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    original = scaling["original_max_position_embeddings"]
    scaled = []
    for frequency in plain:
        # Word for word after the publication: by wavelength.
        wavelength = 2 * math.pi / frequency
        if wavelength < original / high:
            scaled.append(frequency)
        elif wavelength > original / low:
            scaled.append(frequency / scaling["factor"])
        else:
            smooth = (original / wavelength - low) / (high - low)
            scaled.append((1 - smooth) * frequency / scaling["factor"] + smooth * frequency)
    return np.array(scaled)
