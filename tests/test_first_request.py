"""A node that loads its model when the first request comes."""

import pytest

from tools.daemon import Chaskid
from tools.mqtt_client import Client
from tools.process import memory

# Megabytes of a node without a model; the target of the project is 16.
MOST_IDLE = 16


@pytest.fixture
def node(mosquitto, chaskid, smollm2_folder, tmp_path):
    """A daemon that is online, its `.port` that of the broker."""
    broker = mosquitto()
    folder = tmp_path / "model"
    folder.symlink_to(smollm2_folder)
    daemon = Chaskid(chaskid, tmp_path, folder, broker.port, "lazy", model='load = "first-request"')
    daemon.port = broker.port
    daemon.start()
    daemon.wait_for_log("connected and subscribed")
    yield daemon
    daemon.stop()


def test_the_model_is_loaded_for_the_first_request(node):
    with Client(node.port) as client:
        client.subscribe(node.topic("info"))
        info = client.next_json()
        assert info["model"]["layers"] == 30
        assert not {"load_seconds", "threads", "backend"} & info.keys()
        before = memory(node.process.pid)
        print(f"{before:.1f} MB before the model is loaded")
        assert before < MOST_IDLE
        client.subscribe("me")
        client.publish(node.topic("ask"), "What is the capital of Peru?", "me")
        messages = {message.topic: message for message in (client.next(), client.next())}
        assert b"Lima" in messages["me"].payload
        assert b"load_seconds" in messages[node.topic("info")].payload
    assert "loading the model for the first request" in node.log()


def test_a_model_that_cannot_be_loaded_is_told_and_tried_again(node, smollm2_folder, tmp_path):
    (tmp_path / "model").unlink()
    with Client(node.port) as client:
        client.subscribe("me")
        client.publish(node.topic("ask"), "What is the capital of Peru?", "me")
        error = client.next().payload.decode()
        assert error.startswith("error: the model cannot be loaded") and "chaski.json" in error
        (tmp_path / "model").symlink_to(smollm2_folder)
        client.publish(node.topic("ask"), "What is the capital of Peru?", "me")
        assert b"Lima" in client.next().payload
