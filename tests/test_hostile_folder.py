"""Damaged and hostile model folders: `chaski` refuses them in one line and never crashes."""

import hashlib
import json
import os
import random
import shutil
from pathlib import Path

import onnx
import pytest

from tools import llama
from tools.llama import Llama
from tools.programs import run


@pytest.fixture(scope="module")
def sound(chaski_quantize, tmp_path_factory):
    place = tmp_path_factory.mktemp("sound")
    llama.make(Llama("sound", layers=1, tied=True), place / "source")
    run(chaski_quantize, place / "source", "-o", place / "model", "--quiet")
    return place / "model"


@pytest.fixture
def folder(sound, tmp_path):
    shutil.copytree(sound, tmp_path / "model")
    return tmp_path / "model"


def attempt(chaski: Path, folder: Path):
    """Runs a few tokens; gives the exit code and what was said on stderr."""
    result = run(
        chaski, "generate", "--model", folder, "--ids", "5,6,7", "--max-tokens", "2",
        "--ignore-eos", check=False, timeout=60,
    )  # fmt: skip
    assert result.returncode in (0, 1), (result.returncode, result.stderr)
    assert "panicked" not in result.stderr, result.stderr
    return result.returncode, result.stderr


def refusal(chaski: Path, folder: Path) -> str:
    code, stderr = attempt(chaski, folder)
    assert code == 1
    (line,) = stderr.splitlines()
    assert line.startswith("chaski: ")
    return line


def edit_graph(folder: Path, change) -> None:
    """Changes model.onnx, and the manifest's figures of it so that they still hold."""
    path = folder / "model.onnx"
    model = onnx.load(str(path), load_external_data=False)
    change(model.graph)
    path.write_bytes(model.SerializeToString())
    restate(folder, "model.onnx")


def set_attribute(folder: Path, op_type: str, attribute: str, value: int) -> None:
    """Sets an integer attribute of every node of a kind."""

    def spoil(graph):
        for node in graph.node:
            for entry in node.attribute:
                if node.op_type == op_type and entry.name == attribute:
                    entry.i = value

    edit_graph(folder, spoil)


def restate(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    manifest = json.loads((folder / "chaski.json").read_text())
    manifest["files"][name] = {
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    (folder / "chaski.json").write_text(json.dumps(manifest))


def test_the_sound_folder_runs(chaski, sound):
    assert attempt(chaski, sound)[0] == 0


def test_no_folder_at_all(chaski, tmp_path):
    assert "nowhere" in refusal(chaski, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "chaski.json" in refusal(chaski, tmp_path / "empty")


NAMES = ["model.onnx", "model.onnx.data", "tokenizer.json", "chaski.json"]


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file(chaski, folder, name):
    (folder / name).unlink()
    assert name in refusal(chaski, folder)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("restated", [False, True], ids=["as-it-is", "manifest-agrees"])
def test_a_truncated_file(chaski, folder, name, restated):
    os.truncate(folder / name, (folder / name).stat().st_size // 2)
    if restated and name != "chaski.json":
        restate(folder, name)
    assert name.removesuffix(".data") in refusal(chaski, folder)


def test_external_data_elsewhere(chaski, folder):
    """A graph may not read any file but the folder's own."""

    def lead_out(graph):
        for tensor in graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = "../../../../../../etc/passwd"

    edit_graph(folder, lead_out)
    refusal(chaski, folder)


@pytest.mark.parametrize("key", ["offset", "length"])
@pytest.mark.parametrize("value", ["-1", "18446744073709551615", "1048576000", "many"])
def test_external_data_beyond_the_file(chaski, folder, key, value):
    def reach_out(graph):
        for tensor in graph.initializer:
            for entry in tensor.external_data:
                if entry.key == key:
                    entry.value = value

    edit_graph(folder, reach_out)
    refusal(chaski, folder)


@pytest.mark.parametrize("attribute", ["K", "N", "bits", "block_size"])
@pytest.mark.parametrize("value", [0, -1, 3, 2**40])
def test_absurd_attributes_of_matmul(chaski, folder, attribute, value):
    set_attribute(folder, "MatMulNBits", attribute, value)
    refusal(chaski, folder)


@pytest.mark.parametrize("attribute", ["num_heads", "kv_num_heads"])
@pytest.mark.parametrize("value", [0, -2, 5, 2**40])
def test_absurd_attributes_of_attention(chaski, folder, attribute, value):
    set_attribute(folder, "GroupQueryAttention", attribute, value)
    refusal(chaski, folder)


def test_a_missing_node(chaski, folder):
    def remove(graph):
        (index,) = [i for i, n in enumerate(graph.node) if n.op_type == "GroupQueryAttention"]
        del graph.node[index]

    edit_graph(folder, remove)
    refusal(chaski, folder)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "chaski.json"])
def test_flipped_bytes_never_crash(chaski, folder, name):
    original = (folder / name).read_bytes()
    dice = random.Random(name)
    for _ in range(60):
        content = bytearray(original)
        for _ in range(dice.randint(1, 3)):
            content[dice.randrange(len(content))] = dice.randrange(256)
        (folder / name).write_bytes(content)
        if name != "chaski.json":
            restate(folder, name)
        attempt(chaski, folder)


def test_ids_beyond_the_vocabulary(chaski, sound):
    result = run(
        chaski, "generate", "--model", sound, "--ids", f"5,{llama.VOCAB_SIZE}",
        "--max-tokens", "1", check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert str(llama.VOCAB_SIZE) in result.stderr and "panicked" not in result.stderr
