"""Damaged, hostile and unsupported inputs: one clear error, and no output."""

import json
import os
import random
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import load_file, save_file

from tools import gguf_files, llama
from tools.llama import Llama
from tools.programs import run


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A sound model in each form; tests damage copies of them."""
    place = tmp_path_factory.mktemp("originals")
    plain = llama.make(Llama("plain", layers=2), place / "plain")
    llama.make(Llama("sharded", layers=2, shard="60KB"), place / "sharded")
    gguf_files.write(place / "model.gguf", plain, Type.Q8_0)
    return place


@pytest.fixture
def refused(chaski_quantize, tmp_path):
    """Runs the quantiser on an input it must refuse; gives its one line of complaint."""

    def refuse(source: Path, *expected: str, timeout: float = 60) -> str:
        place = tmp_path / "out"
        place.mkdir(exist_ok=True)
        result = run(
            chaski_quantize, source, "-o", place / "model", "--quiet",
            check=False, timeout=timeout,
        )  # fmt: skip
        assert result.returncode == 1, (result.returncode, result.stderr)
        assert result.stdout == ""
        assert list(place.iterdir()) == [], "something was left behind"
        (line,) = result.stderr.splitlines()
        assert line.startswith("chaski-quantize: ")
        assert len(line) < 1000
        for text in expected:
            assert text in line, line
        return line

    return refuse


def copy(originals: Path, name: str, tmp_path: Path) -> Path:
    target = tmp_path / name
    if (originals / name).is_dir():
        shutil.copytree(originals / name, target)
    else:
        shutil.copyfile(originals / name, target)
    return target


def edit_json(path: Path, **changes) -> None:
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps(content))


def test_the_originals_are_sound(originals, chaski_quantize, tmp_path):
    """Otherwise the refusals below would prove nothing."""
    for name in ("plain", "sharded", "model.gguf"):
        run(chaski_quantize, originals / name, "-o", tmp_path / name, "--quiet")


def test_input_that_is_not_there(refused, tmp_path):
    refused(tmp_path / "nowhere", "nowhere")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "empty", "safetensors")


@pytest.mark.parametrize("share", [0.0, 0.00001, 0.001, 0.01, 0.5, 0.9, 0.9999])
def test_truncated_gguf(originals, refused, tmp_path, share):
    path = copy(originals, "model.gguf", tmp_path)
    os.truncate(path, int(path.stat().st_size * share))
    refused(path, "model.gguf")


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        pytest.param(0, b"GGML", id="magic"),
        pytest.param(4, struct.pack("<I", 99), id="version"),
        pytest.param(4, struct.pack(">I", 3), id="big-endian"),
        pytest.param(8, struct.pack("<Q", 2**63), id="tensor-count"),
        pytest.param(8, struct.pack("<Q", 10**9), id="tensor-count-billion"),
        pytest.param(16, struct.pack("<Q", 2**64 - 1), id="metadata-count"),
        pytest.param(24, struct.pack("<Q", 2**64 - 1), id="key-length"),
        pytest.param(24, struct.pack("<Q", 2**40), id="key-length-terabyte"),
    ],
)
def test_gguf_with_a_corrupt_header(originals, refused, tmp_path, offset, value):
    path = copy(originals, "model.gguf", tmp_path)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(value)
    refused(path, "model.gguf")


def test_gguf_array_of_absurd_length(originals, refused, tmp_path):
    """A count that would be terabytes, were it believed."""
    path = copy(originals, "model.gguf", tmp_path)
    content = bytearray(path.read_bytes())
    at = content.index(b"tokenizer.ggml.tokens") + len(b"tokenizer.ggml.tokens") + 8
    content[at : at + 8] = struct.pack("<Q", 2**60)
    path.write_bytes(content)
    refused(path, "model.gguf")


def test_gguf_of_another_architecture(originals, refused, tmp_path):
    path = copy(originals, "model.gguf", tmp_path)
    content = path.read_bytes().replace(b"general.architecture", b"general.architecture", 1)
    at = content.index(b"llama", content.index(b"general.architecture"))
    path.write_bytes(content[:at] + b"gemma" + content[at + 5 :])
    refused(path, "gemma")


def test_flipped_bytes_never_crash_the_quantiser(originals, chaski_quantize, tmp_path):
    """Of the header and its metadata; weights may be anything but not a number."""
    original = (originals / "model.gguf").read_bytes()
    dice = random.Random(2)
    for case in range(150):
        content = bytearray(original)
        for _ in range(dice.randint(1, 4)):
            content[dice.randrange(min(len(content), 16384))] = dice.randrange(256)
        path, out = tmp_path / "flipped.gguf", tmp_path / "out"
        path.write_bytes(content)
        out.mkdir()
        result = run(
            chaski_quantize, path, "-o", out / "model", "--quiet", check=False, timeout=60
        )
        assert result.returncode in (0, 1), (case, result.returncode, result.stderr)
        assert "panicked" not in result.stderr, (case, result.stderr)
        if result.returncode == 1:
            assert len(result.stderr.splitlines()) == 1, (case, result.stderr)
            assert list(out.iterdir()) == [], case
        shutil.rmtree(out)


def test_missing_shard(originals, refused, tmp_path):
    folder = copy(originals, "sharded", tmp_path)
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    refused(folder, shard.name)


def test_index_that_leads_out_of_the_folder(originals, refused, tmp_path):
    folder = copy(originals, "sharded", tmp_path)
    shutil.copytree(originals / "plain", tmp_path / "elsewhere")
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    for name in index["weight_map"]:
        index["weight_map"][name] = "../elsewhere/model.safetensors"
    path.write_text(json.dumps(index))
    refused(folder, "../elsewhere/model.safetensors")


def test_truncated_safetensors(originals, refused, tmp_path):
    for share in (0.0, 0.00002, 0.01, 0.5, 0.999):
        folder = tmp_path / f"cut-{share}"
        shutil.copytree(originals / "plain", folder)
        path = folder / "model.safetensors"
        os.truncate(path, int(path.stat().st_size * share))
        refused(folder, "model.safetensors")


@pytest.mark.parametrize(
    "length", [0, 2**20, 2**63, 2**64 - 1], ids=["none", "beyond-the-file", "2^63", "2^64-1"]
)
def test_safetensors_with_a_header_of_absurd_length(originals, refused, tmp_path, length):
    folder = copy(originals, "plain", tmp_path)
    with (folder / "model.safetensors").open("r+b") as file:
        file.write(struct.pack("<Q", length))
    refused(folder, "model.safetensors")


def rewrite_header(path: Path, change) -> None:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def test_safetensors_with_contradictory_offsets(originals, refused, tmp_path):
    name = "model.layers.1.mlp.up_proj.weight"
    changes = {
        "beyond": lambda t: t.update(data_offsets=[0, 2**50]),
        "backwards": lambda t: t.update(data_offsets=[400, 0]),
        "overflow": lambda t: t.update(shape=[2**33, 2**33]),
        "other-shape": lambda t: t.update(shape=t["shape"][::-1]),
    }
    for case, change in changes.items():
        folder = tmp_path / case
        shutil.copytree(originals / "plain", folder)
        rewrite_header(folder / "model.safetensors", lambda header, c=change: c(header[name]))
        refused(folder, "model.safetensors")


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf], ids=["nan", "inf", "-inf"])
def test_weights_that_are_no_numbers(originals, refused, tmp_path, poison):
    folder = copy(originals, "plain", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.self_attn.o_proj.weight"
    tensors[name][3, 5] = poison
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, name)


def test_missing_tensor(originals, refused, tmp_path):
    folder = copy(originals, "plain", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, name)


def test_unsupported_models_are_refused_by_name(originals, refused, tmp_path):
    cases = {
        "mistral": {"model_type": "mistral", "architectures": ["MistralForCausalLM"]},
        "gpt2": {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]},
        "gelu": {"hidden_act": "gelu"},
        "yarn": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}},
    }
    for name, changes in cases.items():
        folder = tmp_path / name
        shutil.copytree(originals / "plain", folder)
        edit_json(folder / "config.json", **changes)
        refused(folder, name)


def test_absurd_figures(originals, refused, tmp_path):
    cases = {
        "no-layers": {"num_hidden_layers": 0},
        "many-layers": {"num_hidden_layers": 2**40},
        "negative": {"hidden_size": -96},
        "heads": {"num_key_value_heads": 5},
        "vocabulary": {"vocab_size": 2**62},
        "context": {"max_position_embeddings": 2**62},
        "epsilon": {"rms_norm_eps": -1.0},
        "text": {"hidden_size": "large"},
    }
    for name, changes in cases.items():
        folder = tmp_path / name
        shutil.copytree(originals / "plain", folder)
        edit_json(folder / "config.json", **changes)
        refused(folder)


def test_broken_json(originals, refused, tmp_path):
    for name in ("config.json", "tokenizer.json"):
        folder = tmp_path / f"broken-{name}"
        shutil.copytree(originals / "plain", folder)
        (folder / name).write_text('{"vocab_size": ')
        refused(folder, name)
        (folder / name).write_text("[" * 100_000)
        refused(folder, name)


def test_an_output_that_is_not_ours_is_kept(originals, chaski_quantize, tmp_path):
    target = tmp_path / "precious"
    target.mkdir()
    (target / "letter.txt").write_text("dear")
    for options in ((), ("--force",)):
        result = run(
            chaski_quantize, originals / "plain", "-o", target, *options, check=False
        )
        assert result.returncode == 1
        assert "precious" in result.stderr
    assert [path.name for path in target.iterdir()] == ["letter.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious"]
