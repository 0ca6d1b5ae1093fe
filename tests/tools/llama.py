"""Makes small Llamas of random weights, as Hugging Face would have them on disk."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import tokenizers
import torch
import transformers

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    # Small enough that a short prompt reaches beyond it.
    "original_max_position_embeddings": 64,
}

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

VOCAB_SIZE = 384


@dataclass(frozen=True)
class Llama:
    """What one small Llama is made of."""

    name: str
    hidden: int = 96
    intermediate: int = 160
    layers: int = 2
    heads: int = 6
    kv_heads: int = 2
    head_dim: int | None = None
    tied: bool = False
    rope: dict | None = None
    rope_theta: float = 10000.0
    attention_bias: bool = False
    mlp_bias: bool = False
    dtype: torch.dtype = torch.float32
    shard: str = "5GB"
    old_config: bool = False
    """Write config.json as transformers 4 did: rope_scaling, torch_dtype."""
    quantize: tuple[str, ...] = field(default=())
    """More arguments for chaski-quantize."""


def make(llama: Llama, folder: Path, seed: int = 0) -> transformers.LlamaForCausalLM:
    """Writes config, weights, tokenizer and chat template of a random Llama."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=llama.hidden,
        intermediate_size=llama.intermediate,
        num_hidden_layers=llama.layers,
        num_attention_heads=llama.heads,
        num_key_value_heads=llama.kv_heads,
        head_dim=llama.head_dim or llama.hidden // llama.heads,
        tie_word_embeddings=llama.tied,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", **(llama.rope or {}), "rope_theta": llama.rope_theta},
        attention_bias=llama.attention_bias,
        mlp_bias=llama.mlp_bias,
        rms_norm_eps=1e-5,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = transformers.LlamaForCausalLM(config)
    # The library's own start (0.02, biases 0, norms 1) makes logits so small and
    # attention so even that a wrong one would hardly show.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
            elif name.endswith(".bias"):
                parameter.normal_(0.0, 0.3)
            else:
                parameter.normal_(0.0, 1.5 / parameter.shape[-1] ** 0.5)
    model = model.to(llama.dtype).eval()
    model.save_pretrained(folder, max_shard_size=llama.shard)
    make_tokenizer().save_pretrained(folder)
    if llama.old_config:
        _rewrite_config(folder / "config.json", llama)
        _move_chat_template(folder)
    return model


def _rewrite_config(path: Path, llama: Llama) -> None:
    config = json.loads(path.read_text())
    del config["rope_parameters"]
    config["rope_theta"] = llama.rope_theta
    config["rope_scaling"] = llama.rope
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config, indent=2))


def _move_chat_template(folder: Path) -> None:
    """Into tokenizer_config.json, where transformers 4 had it."""
    template = folder / "chat_template.jinja"
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["chat_template"] = template.read_text()
    path.write_text(json.dumps(config, indent=2))
    template.unlink()


def make_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A byte-level BPE, trained on a few lines; the same each time."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    special = ["<unk>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=special,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = ["the quick brown fox jumps over the lazy dog", "messages run from post to post"] * 8
    tokenizer.train_from_iterator(lines, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=CHAT_TEMPLATE,
    )
