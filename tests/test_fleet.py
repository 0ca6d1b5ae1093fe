"""Nodes of one group behind one broker."""

import json

import pytest

from tools.board import FakeBoard
from tools.daemon import Chaskid
from tools.mqtt_client import Client, user_property

NAMES = ("ann", "bob")


@pytest.fixture
def fleet(mosquitto, chaskid, smollm2_folder, tmp_path):
    """`.port` of a broker, and `.nodes` of the group `house` there."""
    broker = mosquitto()
    nodes = {
        name: Chaskid(
            chaskid, tmp_path, smollm2_folder, broker.port, name, node='group = "house"',
            limits="queue-depth = 20\nper-client-depth = 20\nmax-tokens = 4",
        ).start()
        for name in NAMES
    }  # fmt: skip
    for node in nodes.values():
        node.wait_for_log("connected and subscribed")
    yield broker.port, nodes
    for node in nodes.values():
        node.stop()


def ask(me: Client, name: str) -> None:
    request = {"id": name, "messages": [{"role": "user", "content": f"Say {name}."}]}
    me.publish("chaski/house/chat", request, "me", correlation=name.encode())


def test_the_work_is_shared(fleet, chaski, run):
    port, _ = fleet
    with Client(port) as me:
        me.subscribe("me")
        for number in range(12):
            ask(me, f"q{number}")
        replies = [me.next() for _ in range(12)]
    answers = [json.loads(reply.payload) for reply in replies]
    assert {answer["id"] for answer in answers} == {f"q{number}" for number in range(12)}
    by_node = {user_property(reply, "node") for reply in replies}
    assert by_node == set(NAMES) == {answer["node"] for answer in answers}
    shown = run(chaski, "ask", "Hello?", "--host", "127.0.0.1", "--port", str(port), "--group", "house",
                "--json")  # fmt: skip
    assert json.loads(shown.stdout)["node"] in NAMES


def test_a_node_that_is_killed_loses_no_question(fleet):
    port, nodes = fleet
    with Client(port) as me:
        me.subscribe("me")
        for number in range(12):
            ask(me, f"q{number}")
        nodes["bob"].kill()
        nodes["bob"].start()
        texts: dict[str, set] = {}
        while len(texts) < 12:
            answer = me.next_json()
            texts.setdefault(answer["id"], set()).add(answer["choices"][0]["message"]["content"])
    assert all(len(seen) == 1 for seen in texts.values()), texts


def test_a_node_that_is_too_hot_leaves_the_questions_to_the_other(fleet, chaskid, smollm2_folder, tmp_path):
    port, nodes = fleet
    nodes["bob"].terminate()
    fake = FakeBoard(tmp_path / "root")
    hot = Chaskid(
        chaskid, tmp_path, smollm2_folder, port, "bob", node='group = "house"',
        limits="max-tokens = 4", metrics=f'system-root = "{fake.root}"',
        heat="recover-seconds = 1",
    )  # fmt: skip
    with Client(port) as me, Client(port) as listener:
        me.subscribe("me")
        listener.subscribe("chaski/bob/metrics")
        # Hot before it comes: it does not even join.
        fake.heat(90)
        nodes["bob"] = hot.start()
        assert listener.next_json()["strain"]["heat"] == "refusing"
        # It has told the broker once it answers, on a topic of its own, that it does not.
        me.publish("chaski/bob/ask", "Hello?", "me")
        assert user_property(me.next(), "error") == "overheated"
        for number in range(6):
            ask(me, f"q{number}")
        assert [me.next_json()["node"] for _ in range(6)] == ["ann"] * 6
        fake.heat(40)
        while listener.next_json()["strain"]["heat"] != "normal":
            pass
        me.publish("chaski/bob/ask", "Hello?", "me")
        assert user_property(me.next(), "error") is None
        for number in range(12):
            ask(me, f"r{number}")
        assert {me.next_json()["node"] for _ in range(12)} == {"ann", "bob"}
