"""GGUF in: what gguf-py reads out of a file is what the model folder holds."""

import json
from dataclasses import replace

import gguf
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from gguf import GGMLQuantizationType as Type

from tools import engine, gguf_files, llama
from tools.folder import BLOCK, ModelFolder
from tools.llama import Llama
from tools.programs import run
from tools.prompts import all_prompts

TYPES = [
    Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1,
    Type.Q4_K, Type.Q5_K, Type.Q6_K,
]  # fmt: skip

# K-quants have blocks of 256.
SMALL = Llama("gguf", hidden=256, intermediate=256, heads=4, kv_heads=2, layers=2)


@pytest.fixture(scope="module", params=TYPES, ids=lambda kind: kind.name)
def imported(request, chaski_quantize, tmp_path_factory):
    place = tmp_path_factory.mktemp(request.param.name)
    model = llama.make(SMALL, place / "source")
    stored = gguf_files.write(place / "model.gguf", model, request.param)
    run(chaski_quantize, place / "model.gguf", "-o", place / "model")
    return request.param, model, stored, place / "model"


def test_weights_are_those_of_the_file(imported):
    kind, _, stored, folder = imported
    weights = ModelFolder(folder).weights()
    assert set(weights) == set(stored)
    for name, ours in weights.items():
        theirs = stored[name]
        assert ours.shape == theirs.shape, name
        embedding = name == "model.embed_tokens.weight"
        if theirs.ndim == 1 or kind == Type.Q4_0:
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
        elif kind == Type.Q4_1 and not embedding:
            assert_q4_1_bound(ours, theirs, name)
        else:
            error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
            assert error < 0.13, (name, error)


def assert_q4_1_bound(ours, theirs, name) -> None:
    """The one thing lost is the rounding of the zero point to f16: under 1/1000 of a block's largest value."""
    blocks = theirs.reshape(-1, BLOCK)
    largest = np.abs(blocks).max(axis=1, keepdims=True)
    assert (np.abs(ours.reshape(-1, BLOCK) - blocks) <= 1e-3 * largest + 1e-7).all(), name


def test_logits_match_pytorch(imported, chaski):
    """The rows of Q and K are back in Hugging Face's order, or rotary embedding would be wrong."""
    _, model, _, folder = imported
    reference = transformers.LlamaForCausalLM(model.config).to(torch.float32).eval()
    weights = ModelFolder(folder).weights()
    reference.load_state_dict({name: torch.from_numpy(w.copy()) for name, w in weights.items()})
    ids = list(range(3, 80))
    with torch.no_grad():
        theirs = reference(torch.tensor([ids])).logits[0, -1].numpy()
    ours = engine.logits(chaski, folder, ids, *engine.FLOAT)
    assert np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max()


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("scheme", ["auto", "asymmetric"])
def test_q8_0_tables_are_taken_over_with_8_bits(tied, scheme, chaski_quantize, tmp_path):
    model = llama.make(replace(SMALL, tied=tied), tmp_path / "source")
    stored = gguf_files.write(tmp_path / "model.gguf", model, Type.Q8_0)
    options = ["--embedding-bits", "8", "--scheme", scheme]
    run(chaski_quantize, tmp_path / "model.gguf", "-o", tmp_path / "model", *options)
    weights = ModelFolder(tmp_path / "model").weights()
    embedding = stored["model.embed_tokens.weight"]
    np.testing.assert_array_equal(weights["model.embed_tokens.weight"], embedding)
    np.testing.assert_array_equal(
        weights["lm_head.weight"], stored.get("lm_head.weight", embedding)
    )


def test_smollm2_comes_in_without_a_second_loss(smollm2_gguf, smollm2_folder):
    """Every tensor of the real Q4_1 file, against what gguf-py reads in it."""
    folder = ModelFolder(smollm2_folder)
    weights = folder.weights()
    heads = {
        "attn_q.weight": folder.architecture["heads"],
        "attn_k.weight": folder.architecture["kv_heads"],
    }
    theirs = {}
    for tensor in gguf.GGUFReader(smollm2_gguf).tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        count = next((n for end, n in heads.items() if tensor.name.endswith(end)), None)
        theirs[tensor.name] = (
            tensor.tensor_type,
            gguf_files.unpermute(values, count) if count else values,
        )
    exact = 0
    for name, ours in weights.items():
        if name == "lm_head.weight":
            continue
        kind, values = theirs.pop(gguf_files.gguf_name(name))
        if values.ndim == 1:
            np.testing.assert_array_equal(ours, values, err_msg=name)
        elif kind == Type.Q4_1 and name != "model.embed_tokens.weight":
            assert_q4_1_bound(ours, values, name)
            exact += 1
        else:
            error = np.linalg.norm(ours - values) / np.linalg.norm(values)
            assert error < 0.12, (name, kind.name, error)
    assert not theirs, f"not in the folder: {sorted(theirs)}"
    assert exact > 0


TRICKY = [
    "", " ", "  ", "   7", "\n\n\n  x", "12345 67 8.9e-10", "I'll we've THEY'RE don't",
    "tab\tand\r\nreturn", "e\u0301 é \u00a0nbsp\u3000wide", "👩‍🔬🏳️‍🌈", "<|im_start|>user\nhi<|im_end|>\n",
    "<|endoftext|><|im_start", "\u0000\u0001\ufeff", "ﷺ ١٢٣ Ⅻ ½", "a" * 300, "x  y   z    1",
]  # fmt: skip


def test_tokenizer_encodes_as_llama_cpp_does(smollm2_gguf, smollm2_folder):
    """llama.cpp's `smollm` pre-tokenizer is single digits, then GPT-2's expression.

    The reference is put together from the file's own vocabulary and merges by
    gguf-py and `tokenizers`.
    """
    fields = gguf.GGUFReader(smollm2_gguf).fields
    assert fields["tokenizer.ggml.pre"].contents() == "smollm"
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    reference = tokenizers.Tokenizer(
        tokenizers.models.BPE({token: i for i, token in enumerate(tokens)}, merges)
    )
    reference.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    reference.add_special_tokens(
        [t for t, kind in zip(tokens, kinds, strict=True) if kind == gguf.TokenType.CONTROL]
    )
    ours = tokenizers.Tokenizer.from_file(str(smollm2_folder / "tokenizer.json"))
    assert ours.get_vocab_size() == len(tokens)
    texts = TRICKY + [next(iter(prompt.values())) for prompt in all_prompts()]
    for text in texts:
        expected = reference.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, add_special_tokens=False).ids == expected, text
        assert ours.decode(expected, skip_special_tokens=False) == text.encode(
            "utf-8", "surrogatepass"
        ).decode()


def test_chat_template_is_the_files(smollm2_gguf, smollm2_folder):
    template = gguf.GGUFReader(smollm2_gguf).fields["tokenizer.chat_template"].contents()
    config = json.loads((smollm2_folder / "tokenizer_config.json").read_text())
    assert config["chat_template"] == template
