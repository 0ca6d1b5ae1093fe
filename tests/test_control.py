"""Commands for a node: drain, resume, reload, another model."""

import json
import shutil
import signal

import pytest

from tools.mqtt_client import Client

QUESTION = "What is the capital of Peru?"


@pytest.fixture
def me(node):
    """A factory of a client of a node, which listens to its inbox `me`."""
    clients = []

    def factory(daemon) -> Client:
        client = Client(daemon.port)
        clients.append(client)
        client.subscribe("me")
        return client

    yield factory
    for client in clients:
        client.close()


def ask(me, node, name: str, topic: str = "chat", **fields) -> dict:
    request = {"id": name, "messages": [{"role": "user", "content": QUESTION}], **fields}
    me.publish(node.topic(topic), request, "me")
    return me.next_json()


def command(me, node, text: str) -> dict:
    me.publish(node.topic("control"), text, "me")
    return me.next_json()


def test_without_being_enabled_the_node_does_not_listen(node, me):
    node = node()
    me = me(node)
    me.publish(node.topic("control"), "drain", "me")
    assert "Lima" in ask(me, node, "q1")["choices"][0]["message"]["content"]
    assert me.messages.empty()


def test_drain_and_resume(node, me, chaski, run):
    node = node(control="drain = true", node='group = "house"')
    me = me(node)
    with Client(node.port) as watcher:
        watcher.subscribe(node.topic("status"))
        watcher.wait_for(node.topic("status"), "online")
        assert command(me, node, "drain") == {"command": "drain", "node": "board", "state": "draining"}
        watcher.wait_for(node.topic("status"), "draining")
        assert ask(me, node, "q1")["error"]["code"] == "draining"
        port = str(node.port)
        shown = run(chaski, "ask", "Hello?", "--port", port, "--node", "board", check=False)
        assert shown.returncode != 0 and "told to take nothing new" in shown.stderr, shown
        # It has left its group: nobody takes this, until it is back.
        group = {"id": "g", "messages": [{"role": "user", "content": QUESTION}]}
        with pytest.raises(AssertionError, match="no message"):
            me.publish("chaski/house/chat", group, "me")
            me.next(2)
        assert command(me, node, '{"command": "resume"}')["state"] == "online"
        watcher.wait_for(node.topic("status"), "online")
        assert "Lima" in ask(me, node, "q2")["choices"][0]["message"]["content"]
        me.publish("chaski/house/chat", {**group, "id": "g2"}, "me")
        reply = me.next_json()
        assert (reply["id"], reply["node"]) == ("g2", "board")
    refused = command(me, node, "reload")
    assert refused["error"]["code"] == "unsupported" and "[control]" in refused["error"]["message"]


def test_reload_over_mqtt_and_by_signal(node, me):
    node = node(control="reload = true")
    me = me(node)
    text = node.config_file.read_text()
    tokens = lambda name: ask(me, node, name)["usage"]["completion_tokens"]
    assert tokens("q1") > 3

    changed = text.replace("[limits]\n", "[limits]\nmax-tokens = 3\n")
    node.config_file.write_text(changed.replace("threads = 1", "threads = 2"))
    assert command(me, node, "reload") == {
        "command": "reload", "node": "board", "state": "online", "restart_needed": ["model"]
    }  # fmt: skip
    assert tokens("q2") == 3

    node.config_file.write_text(text.replace("[limits]\n", "[limits]\nmax-tokens = many\n"))
    refused = command(me, node, "reload")["error"]
    assert refused["code"] == "invalid_config" and "max-tokens" in refused["message"]
    assert tokens("q3") == 3

    node.config_file.write_text(text.replace("[limits]\n", "[limits]\nmax-tokens = 2\n"))
    node.process.send_signal(signal.SIGHUP)
    node.wait_for_log("the configuration was read again\n")
    assert tokens("q4") == 2


def test_another_model_and_back(node, me, smollm2_folder, tmp_path):
    models = tmp_path / "models"
    for name in ("first", "second", "broken"):
        shutil.copytree(smollm2_folder, models / name, copy_function=shutil.os.link)
    # Of the right size, so that only loading it finds out.
    graph = models / "broken" / "model.onnx"
    size = graph.stat().st_size
    graph.unlink()
    graph.write_bytes(b"\0" * size)
    node = node(control=f'models-folder = "{models}"')
    me = me(node)
    with Client(node.port) as watcher:
        watcher.subscribe(node.topic("info"))
        assert watcher.next_json()["model"]["name"] == "model"
        done = command(me, node, "model second")
        assert (done["model"], done["state"]) == ("second", "online") and done["load_seconds"] > 0
        infos = [watcher.next_json(), watcher.next_json()]
        assert "load_seconds" not in infos[0]
        assert infos[1]["model"]["name"] == "second" and infos[1]["load_seconds"] > 0
    reply = ask(me, node, "q1")
    assert reply["model"] == "second" and "Lima" in reply["choices"][0]["message"]["content"]

    for name, word in [("none", "none"), ("broken", "model.onnx"), ("../models/first", "model")]:
        refused = command(me, node, f"model {name}")["error"]
        assert refused["code"] in ("model_unavailable", "invalid_request"), refused
        assert word in refused["message"]
    reply = ask(me, node, "q2")
    assert reply["model"] == "second" and "Lima" in reply["choices"][0]["message"]["content"]


def test_prompts_are_logged_only_if_told_to(node, me):
    node = node(control="reload = true")
    me = me(node)
    assert "Lima" in json.dumps(ask(me, node, "q1"))
    assert "Peru" not in node.log() and "Lima" not in node.log()
    node.config_file.write_text(node.config_file.read_text() + "[log]\nprompts = true\n")
    assert command(me, node, "reload")["restart_needed"] == []
    ask(me, node, "q2")
    assert "Peru" in node.log() and "Lima" in node.log()
