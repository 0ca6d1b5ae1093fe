"""Written folders in ONNX Runtime, against a Llama in numpy of the same quantised weights."""

import json

import numpy as np
import onnx
import pytest

from tools import numpy_llama, ort
from tools.folder import BLOCK, ModelFolder
from tools.programs import run

VARIANTS = {
    "untied": {},
    "tied-mha": {"tie_word_embeddings": True, "num_key_value_heads": 6},
    "biases": {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1},
    "wide-heads": {"head_dim": 32, "tie_word_embeddings": True},
    "llama3-rope": {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    },
    "linear-rope": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
}

IDS = [int(i) for i in np.random.default_rng(1).integers(0, numpy_llama.VOCAB_SIZE, 80)]


SCHEMES = ["auto", "symmetric", "asymmetric"]
CASES = [(variant, scheme, 4) for variant in VARIANTS for scheme in SCHEMES]
# The scheme has no say in tables of 8 bits: one tied and one untied folder do,
# with layers of either kind.
CASES += [("untied", "asymmetric", 8), ("tied-mha", "auto", 8)]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def made(request, chaski_quantize, tmp_path_factory):
    variant, scheme, bits = request.param
    place = tmp_path_factory.mktemp(variant)
    config = numpy_llama.write(place / "source", **VARIANTS[variant])
    options = ["--scheme", scheme, "--embedding-bits", str(bits)]
    run(chaski_quantize, place / "source", "-o", place / "model", *options)
    return config, place / "model"


def register_simplified_layer_normalization():
    """ONNX Runtime's operator has no domain, so the checker takes it for a standard one."""
    name = "SimplifiedLayerNormalization"
    if onnx.defs.has(name):
        return
    schema = onnx.defs.OpSchema
    onnx.defs.register_schema(
        schema(
            name,
            "",
            1,
            inputs=[schema.FormalParameter("X", "T"), schema.FormalParameter("scale", "T")],
            outputs=[schema.FormalParameter("Y", "T")],
            type_constraints=[("T", ["tensor(float)"], "")],
            attributes=[
                schema.Attribute("axis", schema.AttrType.INT, ""),
                schema.Attribute("epsilon", schema.AttrType.FLOAT, ""),
            ],
        )
    )


def test_onnx_own_checker_finds_nothing(made):
    register_simplified_layer_normalization()
    onnx.checker.check_model(str(made[1] / "model.onnx"), full_check=True)


def test_logits_are_those_of_the_quantised_weights(made):
    """Prefill at once, in chunks, and token by token give the logits numpy gives."""
    config, folder = made
    expected = numpy_llama.logits(config, ModelFolder(folder).weights(), IDS)
    scale = np.abs(expected).max()
    model = ort.OrtModel(folder)
    for parts in ([80], [1, 30, 40, 9], [64] + [1] * 16):
        decoder, start = model.decoder(), 0
        for part in parts:
            found = decoder.feed_all(IDS[start : start + part])
            difference = np.abs(found - expected[start : start + part]).max()
            assert difference < 2e-5 * scale, (parts, start, difference, scale)
            start += part


def test_the_answer_is_near_that_of_the_source(made):
    """4 bits cost something, but the distribution is still the model's."""
    config, folder = made
    from safetensors.numpy import load_file

    source = load_file(folder.parent / "source" / "model.safetensors")
    source.setdefault("lm_head.weight", source["model.embed_tokens.weight"])
    exact = numpy_llama.logits(config, source, IDS)
    ours = ort.OrtModel(folder).decoder().feed_all(IDS)
    similarity = (exact * ours).sum() / np.linalg.norm(exact) / np.linalg.norm(ours)
    assert similarity > 0.96, similarity


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_tables_of_8_bits_are_near_the_source_and_shared_when_tied(
    tied, chaski_quantize, tmp_path
):
    numpy_llama.write(tmp_path / "source", tie_word_embeddings=tied)
    output = tmp_path / "model"
    run(chaski_quantize, tmp_path / "source", "-o", output, "--embedding-bits", "8")
    from safetensors.numpy import load_file

    source = load_file(tmp_path / "source" / "model.safetensors")
    model = ModelFolder(output)
    ours, ranges = model.weights(), model.external_ranges()
    assert model.manifest["quantisation"]["embedding_bits"] == 8
    names = ["model.embed_tokens.weight", "lm_head.weight"]
    source.setdefault(names[1], source[names[0]])
    for name in names:
        exact = source[name].reshape(-1, BLOCK)
        moved = np.abs(ours[name].reshape(-1, BLOCK) - exact).max(axis=1)
        # Half of one of the 127 steps that a block's largest weight takes, and
        # the rounding of a step to f16.
        assert (moved <= (1 / 254 + 1e-5) * np.abs(exact).max(axis=1)).all(), name
    for part in ("quants", "scales"):
        table, head = (ranges[f"{name}.{part}"] for name in names)
        assert (table == head) == tied


def test_the_summary_tells_kinds_sizes_and_errors(chaski_quantize, tmp_path):
    numpy_llama.write(tmp_path / "source", tie_word_embeddings=True)
    done = run(chaski_quantize, tmp_path / "source", "-o", tmp_path / "model")
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert {"embedding", "attention", "mlp", "norm", "rotary", "head", "total"} <= set(lines)
    assert "shared" in lines["head"]
    assert "4.50" in lines["mlp"] and "%" in lines["mlp"]
    assert "32.00" in lines["norm"] and "none" in lines["norm"]
    # No terminal: no bar, no escape sequences.
    assert "\x1b" not in done.stdout + done.stderr
    assert "quantising" in done.stderr


def test_the_context_length_can_be_capped(chaski_quantize, tmp_path):
    numpy_llama.write(tmp_path / "source")
    run(chaski_quantize, tmp_path / "source", "-o", tmp_path / "model", "--context", "64")
    folder = ModelFolder(tmp_path / "model")
    assert folder.architecture["context_length"] == 64
    assert folder.array("cos_cache").shape == (64, 8)
    genai = json.loads((tmp_path / "model" / "genai_config.json").read_text())
    assert genai["model"]["context_length"] == genai["search"]["max_length"] == 64


def test_a_model_folder_is_replaced_only_when_told(chaski_quantize, tmp_path):
    numpy_llama.write(tmp_path / "source")
    output = tmp_path / "model"
    arguments = [chaski_quantize, tmp_path / "source", "-o", output]
    run(*arguments)
    before = (output / "model.onnx.data").read_bytes()
    refused = run(*arguments, "--scheme", "symmetric", check=False)
    assert refused.returncode != 0 and "--force" in refused.stderr
    assert (output / "model.onnx.data").read_bytes() == before
    run(*arguments, "--scheme", "symmetric", "--force")
    assert json.loads((output / "chaski.json").read_text())["quantisation"]["scheme"] == "symmetric"
    assert (output / "model.onnx.data").read_bytes() != before
    assert {path.name for path in tmp_path.iterdir()} == {"source", "model"}
