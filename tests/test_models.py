"""The model store, and the way back from a model that does not come up."""

import hashlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tools import llama
from tools.daemon import Chaskid
from tools.llama import Llama
from tools.mqtt_client import Client
from tools.programs import run


@pytest.fixture(scope="module")
def models(chaski_quantize, tmp_path_factory):
    """Two small models."""
    place = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(["first", "second"]):
        llama.make(Llama(name, layers=1, tied=True), place / f"{name}-source", seed)
        run(chaski_quantize, place / f"{name}-source", "-o", place / name, "--quiet")
    return place


@pytest.fixture
def store(tmp_path):
    """An empty one."""
    (tmp_path / "store" / "incoming").mkdir(parents=True)
    return tmp_path / "store"


@pytest.fixture
def call(chaski, store):
    """Runs `chaski models` on the store, without a service: what it did and said."""

    def call(*words, check=True):
        return run(chaski, "models", "--store", store, "--no-restart", *words, check=check)

    return call


def listed(call) -> list[str]:
    return call("list").stdout.splitlines()


def spoil(folder: Path, restated: bool) -> None:
    """Breaks the graph; `restated`: with the manifest's agreement."""
    graph = folder / "model.onnx"
    content = b"\0" * graph.stat().st_size
    graph.write_bytes(content)
    if restated:
        manifest = json.loads((folder / "chaski.json").read_text())
        manifest["files"]["model.onnx"]["sha256"] = hashlib.sha256(content).hexdigest()
        (folder / "chaski.json").write_text(json.dumps(manifest))


def test_install_use_and_remove(call, store, models):
    assert listed(call) == []
    call("install", models / "first")
    call("install", models / "second", "--name", "other")
    assert listed(call) == ["  first", "* other"]
    assert os.readlink(store / "current") == "other"
    # Everybody may read a model.
    assert (store / "other").stat().st_mode & 0o777 == 0o755
    assert (store / "other" / "model.onnx").stat().st_mode & 0o777 == 0o644
    call("use", "first")
    assert listed(call) == ["* first", "  other"]
    refused = call("remove", "first", check=False)
    assert refused.returncode == 1 and "current model" in refused.stderr
    call("remove", "other")
    assert listed(call) == ["* first"]


def test_the_same_name_again(call, store, models, tmp_path):
    call("install", models / "first")
    before = (store / "first" / "chaski.json").stat().st_ino
    call("install", models / "first")
    assert listed(call) == ["* first"]
    assert (store / "first" / "chaski.json").stat().st_ino == before
    # Another model by that name has a part of its checksum in its name here.
    shutil.copytree(models / "second", tmp_path / "first")
    call("install", tmp_path / "first")
    digest = hashlib.sha256((tmp_path / "first" / "chaski.json").read_bytes()).hexdigest()
    assert listed(call) == ["  first", f"* first-{digest[:8]}"]


@pytest.mark.parametrize("name", ["", "..", "a/b", ".new-x", "current", "incoming", "rejected"])
def test_names_that_are_none(call, models, name):
    refused = call("install", models / "first", "--name", name, check=False)
    assert refused.returncode == 1 and repr(name)[1:-1] in refused.stderr
    assert listed(call) == []


def test_a_damaged_model_is_not_installed(call, store, models, tmp_path):
    call("install", models / "first")
    shutil.copytree(models / "second", tmp_path / "torn")
    spoil(tmp_path / "torn", restated=False)
    refused = call("install", tmp_path / "torn", check=False)
    assert refused.returncode == 1 and "SHA-256" in refused.stderr
    assert listed(call) == ["* first"]
    assert sorted(path.name for path in store.iterdir()) == ["current", "first", "incoming"]


def test_a_store_that_is_not_there(chaski, tmp_path):
    refused = run(chaski, "models", "--store", tmp_path / "none", "list", check=False)
    assert refused.returncode == 1 and "--store" in refused.stderr


def test_what_arrives_is_taken_in(call, store, models):
    shutil.copytree(models / "first", store / "incoming" / "first")
    (store / "incoming" / "notes.txt").write_text("no model")
    (store / "incoming" / "elsewhere").symlink_to(models / "second")
    result = call("update", "--patience", "1", check=False)
    assert result.returncode == 1 and "2 rejected" in result.stderr
    assert listed(call) == ["* first"]
    assert list((store / "incoming").iterdir()) == []
    assert "no model folder" in (store / "rejected" / "notes.txt.txt").read_text()
    assert (models / "second" / "model.onnx").is_file()


def test_a_copy_that_is_under_way_is_waited_for(chaski, call, store, models):
    arriving = store / "incoming" / "first"
    arriving.mkdir()
    update = subprocess.Popen(
        [chaski, "models", "--store", store, "--no-restart", "update", "--patience", "30"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    for file in sorted((models / "first").iterdir()):
        content = file.read_bytes()
        with (arriving / file.name).open("wb") as half:
            half.write(content[: len(content) // 2])
            half.flush()
            time.sleep(0.5)
            assert update.poll() is None
            half.write(content[len(content) // 2 :])
    said, _ = update.communicate(timeout=60)
    assert update.returncode == 0 and "first" in said
    assert listed(call) == ["* first"]


def test_what_arrives_damaged_is_rejected_again_and_again(call, store, models):
    for _ in range(2):
        shutil.copytree(models / "second", store / "incoming" / "torn")
        spoil(store / "incoming" / "torn", restated=False)
        assert call("update", "--patience", "0", check=False).returncode == 1
        assert listed(call) == []
        assert "SHA-256" in (store / "rejected" / "torn.txt").read_text()


def test_the_service_is_restarted(chaski, store, models, tmp_path):
    """Only one that runs or is to run, and not before the model is there."""
    calls = tmp_path / "calls"
    fake = tmp_path / "bin" / "systemctl"
    fake.parent.mkdir()
    fake.write_text(
        f'#!/bin/sh\necho "$@ $(readlink {store}/current)" >> {calls}\n'
        f'[ "$1" != is-active ] && [ -e {tmp_path}/wanted ]\n'
    )
    fake.chmod(0o755)
    path = {"PATH": f"{fake.parent}:{os.environ['PATH']}"}
    install = (chaski, "models", "--store", store, "--service", "x.service", "install")
    run(*install, models / "first", env=path)
    questions = ["is-active --quiet x.service first", "is-enabled --quiet x.service first"]
    assert calls.read_text().splitlines() == questions
    calls.unlink()
    (tmp_path / "wanted").touch()
    run(*install, models / "second", env=path)
    asked = [line.replace("first", "second") for line in questions]
    assert calls.read_text().splitlines() == [*asked, "restart --no-block x.service second"]


@pytest.fixture
def daemon(mosquitto, chaskid, call, store, models, tmp_path):
    """One that answers with the store's current model, `first`, and was up with it once; its
    `.info()` starts it anew and gives what it tells of itself."""
    call("install", models / "first")
    broker = mosquitto()
    daemon = Chaskid(
        chaskid, tmp_path, store / "current", broker.port, "board",
        model=f'last-good-file = "{tmp_path}/last-good"',
    )  # fmt: skip

    def info() -> dict:
        if daemon.process is not None:
            daemon.terminate()
        with Client(broker.port) as client:
            client.publish(daemon.topic("info"), b"", retain=True)
            daemon.start()
            client.subscribe(daemon.topic("info"))
            told = client.next_json()
            client.subscribe("me")
            client.publish(daemon.topic("chat"), question(), "me")
            assert client.next_json()["choices"], "it does not answer"
        return told

    daemon.info = info
    assert daemon.info()["model"]["name"] == "first"
    yield daemon
    daemon.stop()


def question() -> dict:
    return {"messages": [{"role": "user", "content": "a b"}], "max_tokens": 2}


def test_the_way_back_from_a_model_that_cannot_be_loaded(daemon, call, store, models):
    call("install", models / "second")
    spoil(store / "second", restated=True)
    for _ in range(2):
        told = daemon.info()
        assert told["model"]["name"] == "first"
        assert told["instead_of"]["model"] == "second"
        assert "model.onnx" in told["instead_of"]["reason"]
    # It is tried with each start: it might have been for want of memory.
    assert daemon.log().count("the model cannot be loaded") == 2
    call("remove", "first", check=False)
    shutil.rmtree(store / "second")
    call("install", models / "second")
    told = daemon.info()
    assert told["model"]["name"] == "second" and "instead_of" not in told


def test_the_way_back_from_a_model_that_is_gone(daemon, call, store, models):
    call("install", models / "second")
    assert daemon.info()["model"]["name"] == "second"
    shutil.rmtree(store / "second")
    told = daemon.info()
    assert told["model"]["name"] == "first"
    assert "No such file" in told["instead_of"]["reason"]


def test_the_way_back_from_weights_that_are_no_numbers(daemon, call, store, models):
    """The manifest and the graph are right, and so it is loaded."""
    call("install", models / "second")
    data = store / "second" / "model.onnx.data"
    size = data.stat().st_size
    data.write_bytes(b"\xff" * size)
    told = daemon.info()
    assert told["model"]["name"] == "first"
    assert "damaged" in told["instead_of"]["reason"]


def test_the_way_back_from_a_model_that_kills_the_daemon(daemon, call, store, models, tmp_path):
    """As if it were killed at its first and second start, since there was no memory for it."""
    call("install", models / "second")
    daemon.terminate()
    record = json.loads((tmp_path / "last-good").read_text())
    daemon.start()
    daemon.wait_for_log(f"{store}/second")
    # The record of a start that did not end well: what is there while it is being loaded.
    trial = {"folder": str((store / "second").resolve())}
    daemon.kill()
    record = json.loads((tmp_path / "last-good").read_text())
    version = next(
        entry["version"]
        for entry in record["good"] + [each["candidate"] for each in record["trials"]]
        if entry["folder"] == trial["folder"]
    )
    record["good"] = [each for each in record["good"] if each["folder"] != trial["folder"]]
    record["trials"] = [{"candidate": trial | {"version": version}, "starts": 2}]
    (tmp_path / "last-good").write_text(json.dumps(record))
    daemon.process = None
    told = daemon.info()
    assert told["model"]["name"] == "first"
    assert "2 times" in told["instead_of"]["reason"]
    # Chosen once more, it is given another try.
    call("use", "second")
    assert daemon.info()["model"]["name"] == "second"


def test_without_a_record_there_is_no_way_back(mosquitto, chaskid, call, store, models, tmp_path):
    call("install", models / "first")
    spoil(store / "first", restated=True)
    daemon = Chaskid(chaskid, tmp_path, store / "current", mosquitto().port, "board")
    daemon.start()
    assert daemon.process.wait(60) == 1
    daemon.process = None
    assert "model.onnx" in daemon.log()
