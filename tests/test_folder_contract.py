"""A written folder against docs/model-folder.md, read with nothing of ours."""

import hashlib
import json

import pytest

from tools.folder import DATA_FILE, ModelFolder

PAGE = 4096


@pytest.fixture(scope="module", params=["as-imported", "symmetric"])
def folder(request):
    name = {"as-imported": "smollm2_folder", "symmetric": "smollm2_symmetric_folder"}
    return request.getfixturevalue(name[request.param])


def test_the_manifest_lists_every_file_with_its_hash(folder, smollm2_gguf):
    manifest = json.loads((folder / "chaski.json").read_text())
    assert manifest["format"] == "chaski-model" and manifest["format_version"] == 1
    names = {path.name for path in folder.iterdir()} - {"chaski.json"}
    assert set(manifest["files"]) == names
    assert names == {
        "model.onnx", "model.onnx.data", "genai_config.json", "generation_config.json",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    sources = {smollm2_gguf.name: smollm2_gguf}
    assert set(manifest["source"]["files"]) == set(sources)
    listed = [(folder / name, entry) for name, entry in manifest["files"].items()]
    listed += [(sources[name], entry) for name, entry in manifest["source"]["files"].items()]
    for path, entry in listed:
        content = path.read_bytes()
        assert entry["bytes"] == len(content), path
        assert entry["sha256"] == hashlib.sha256(content).hexdigest(), path


def test_weights_lie_page_aligned_outside_the_graph(folder):
    model = ModelFolder(folder)
    ranges = sorted(set(model.external_ranges().values()))
    size = (folder / DATA_FILE).stat().st_size
    end = 0
    for offset, length in ranges:
        assert offset % PAGE == 0
        assert offset >= end, "two initialisers overlap without being one"
        end = offset + length
    assert end <= size
    assert (folder / "model.onnx").stat().st_size < 1 << 20
    # Tied: the embedding's table and the head's B are the same bytes.
    assert len(ranges) < len(model.external_ranges())


def test_operators_are_the_documented_ones(folder):
    model = ModelFolder(folder)
    counts: dict[str, int] = {}
    for node in model.graph.node:
        domain = f"{node.domain}." if node.domain else ""
        counts[domain + node.op_type] = counts.get(domain + node.op_type, 0) + 1
    layers = model.architecture["layers"]
    assert counts.pop("com.microsoft.MatMulNBits") == 7 * layers + 1
    assert counts.pop("com.microsoft.GroupQueryAttention") == layers
    assert counts.pop("com.microsoft.GatherBlockQuantized") == 1
    assert counts.pop("SimplifiedLayerNormalization") == 2 * layers + 1
    assert counts.pop("Sigmoid") == layers
    assert set(counts) <= {"Add", "Mul", "Cast", "ReduceSum", "Sub", "Shape", "Gather"}
    opsets = {entry.domain: entry.version for entry in model.model.opset_import}
    assert opsets == {"": 18, "com.microsoft": 1}


def test_inputs_and_outputs_are_onnx_runtime_genais(folder):
    model = ModelFolder(folder)
    layers = range(model.architecture["layers"])
    cache = [f"{layer}.{kind}" for layer in layers for kind in ("key", "value")]
    inputs = {value.name for value in model.graph.input}
    outputs = {value.name for value in model.graph.output}
    assert inputs == {"input_ids", "attention_mask"} | {f"past_key_values.{c}" for c in cache}
    assert outputs == {"logits"} | {f"present.{c}" for c in cache}

    decoder = json.loads((folder / "genai_config.json").read_text())["model"]["decoder"]
    assert decoder["filename"] == "model.onnx"
    for names, kind in ((decoder["inputs"], "past"), (decoder["outputs"], "present")):
        graph_names = inputs if kind == "past" else outputs
        for name in names.values():
            assert name.replace("%d", "0") in graph_names, name
    assert decoder["num_hidden_layers"] == len(layers)
    assert decoder["head_size"] == model.architecture["head_dim"]
