"""Heat, a weak supply and want of memory: what a node does, on a board that the test heats."""

import json
import time
from pathlib import Path

import pytest

from tools.board import FakeBoard
from tools.daemon import Chaskid
from tools.mqtt_client import Client, user_property

QUESTION = {"messages": [{"role": "user", "content": "What is the capital of Peru?"}]}
STORY = {
    "messages": [{"role": "user", "content": "Tell me a story about a dog and a cat."}],
    "max_tokens": 60,
}

NORMAL = {"heat": "normal", "memory": "normal", "threads": {"prefill": 2, "decode": 2}}


@pytest.fixture
def fake(tmp_path):
    return FakeBoard(tmp_path / "root")


@pytest.fixture
def hot_node(node, fake):
    """A factory of nodes that look at the fake board and recover within seconds."""

    def factory(**sections):
        sections = {
            "model": "",
            "metrics": "interval-seconds = 1",
            "heat": "recover-seconds = 1",
            "memory": "recover-seconds = 1",
            "limits": "per-client-depth = 8",
        } | sections
        sections["metrics"] += f'\nsystem-root = "{fake.root}"'
        return node(**sections)

    return factory


class Listener:
    """A client that asks, and one that hears what the node tells of itself."""

    def __init__(self, node):
        self.node = node
        self.client, self.events, self.metrics = (Client(node.port) for _ in range(3))
        self.client.subscribe("me")
        self.events.subscribe(node.topic("event"))
        self.metrics.subscribe(node.topic("metrics"))
        self.count = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for each in (self.client, self.events, self.metrics):
            each.close()

    def publish(self, question: dict) -> str:
        self.count += 1
        name = f"q{self.count}"
        self.client.publish(self.node.topic("chat"), {"id": name, **question}, "me")
        return name

    def reply(self, name: str) -> dict:
        reply = self.client.next_json()
        assert reply["id"] == name and "error" not in reply, reply
        return reply

    def ask(self, question: dict) -> dict:
        return self.reply(self.publish(question))

    def level(self, kind: str) -> dict:
        """The next event that a level has changed."""
        while (event := self.events.next_json())["event_type"] != kind:
            assert event["event_type"] in ("answered", "failed", "cancelled"), event
        return event

    def level_while_asking(self, kind: str, question: dict) -> tuple[dict, list[dict]]:
        """The same of a node that may be idle: it looks when it computes. And the replies."""
        replies, changes = [], []
        while not changes:
            replies.append(self.ask(question))
            changes = self.changes(kind)
        (event,) = changes
        return event, replies

    def changes(self, kind: str) -> list[dict]:
        """Those of a level that were told of and not looked at yet."""
        found = []
        while not self.events.messages.empty():
            if (event := self.events.next_json())["event_type"] == kind:
                found.append(event)
        return found

    def strain(self) -> dict:
        """What the metrics say from now on."""
        while not self.metrics.messages.empty():
            self.metrics.next()
        self.metrics.next()
        return self.metrics.next_json()["strain"]


def text_of(reply: dict) -> str:
    return reply["choices"][0]["message"]["content"]


def worker_time(node) -> float:
    """Milliseconds that the second of the engine's threads has had of a processor."""
    for task in Path(f"/proc/{node.process.pid}/task").iterdir():
        if (task / "comm").read_text().strip() == "chaski-1":
            return int((task / "schedstat").read_text().split()[0]) / 1e6
    raise AssertionError("the engine has one thread only")


def test_every_level_of_heat_is_entered_and_left(hot_node, fake):
    node = hot_node(model="threads = 2")
    with Listener(node) as listener:
        # What is in the KV cache is not summed again: the same before each of them.
        listener.ask(STORY)
        before = worker_time(node)
        cool = listener.ask(STORY)
        assert "slowed" not in cool["timings"]
        assert worker_time(node) - before > 5
        assert listener.strain() == NORMAL

        # An idle node looks seldom, one that computes soon.
        fake.heat(76)
        event, replies = listener.level_while_asking("heat", STORY)
        assert event == {
            "event_type": "heat", "level": "fewer_threads", "temperature_celsius": 76.0,
            "under_voltage": False, "node": "board",
        }  # fmt: skip
        assert all(text_of(reply) == text_of(cool) for reply in replies)
        # Really: the other thread sleeps.
        listener.ask(STORY)
        before = worker_time(node)
        slow = listener.ask(STORY)
        assert worker_time(node) - before < 1
        assert slow["timings"]["slowed"] == "fewer_threads" and text_of(slow) == text_of(cool)
        one = {"prefill": 1, "decode": 1}
        assert listener.strain() == {**NORMAL, "heat": "fewer_threads", "threads": one}

        fake.heat(80)
        assert listener.level("heat")["level"] == "pauses"
        slow = listener.ask(STORY)
        assert slow["timings"]["slowed"] == "pauses" and text_of(slow) == text_of(cool)

        # What runs and what waits is answered, whatever comes; together they take longer than the
        # node goes without a look.
        asked = [listener.publish(STORY) for _ in range(6)]
        fake.heat(84)
        assert listener.level("heat")["level"] == "refusing"
        for name in asked:
            slow = listener.reply(name)
            assert text_of(slow) == text_of(cool)
        assert slow["timings"]["slowed"] == "refusing"
        listener.publish(QUESTION)
        message = listener.client.next()
        error = json.loads(message.payload)["error"]
        assert error["code"] == "overheated" and error["type"] == "overloaded_error"
        assert 1 <= error["retry_after_seconds"] <= 320
        assert int(user_property(message, "retry-after")) >= 1
        listener.client.publish(node.topic("ask"), "What is the capital of Peru?", "me")
        assert listener.client.next().payload.startswith(b"error: this node is too hot")

        # Not cool enough to leave any level.
        fake.heat(79.5)
        time.sleep(5)
        assert listener.strain()["heat"] == "refusing"
        assert listener.changes("heat") == []

        fake.heat(50)
        left = [listener.level("heat")["level"] for _ in range(3)]
        assert left == ["pauses", "fewer_threads", "normal"]
        before = worker_time(node)
        cool_again = listener.ask(STORY)
        assert "slowed" not in cool_again["timings"] and text_of(cool_again) == text_of(cool)
        assert worker_time(node) - before > 5
        assert listener.strain() == NORMAL
    log = node.log()
    for text in ("fewer_threads", "pauses", "refusing", "the machine has cooled down"):
        assert text in log, log


def test_a_weak_supply_means_fewer_threads(hot_node, fake):
    node = hot_node(model="threads = 2\ndecode-threads = 1")
    with Listener(node) as listener:
        listener.ask(QUESTION)
        assert listener.strain()["threads"] == {"prefill": 2, "decode": 1}
        fake.firmware("50005")
        event, _ = listener.level_while_asking("heat", QUESTION)
        assert event["level"] == "fewer_threads" and event["under_voltage"] is True
        listener.ask(QUESTION)
        assert listener.strain()["threads"] == {"prefill": 1, "decode": 1}
        # It was so, and is not any more.
        fake.firmware("50000")
        assert listener.level("heat")["level"] == "normal"


def test_limits_of_the_configuration_hold_at_once(hot_node, fake):
    node = hot_node(control="reload = true")
    with Listener(node) as listener:
        text = node.config_file.read_text()
        limits = "[heat]\nease-off = 40\nrefuse = 45\n"
        node.config_file.write_text(text.replace("[heat]\n", limits))
        listener.client.publish(node.topic("control"), "reload", "me")
        assert listener.client.next_json()["restart_needed"] == []
        assert listener.level("heat")["level"] == "refusing"
        node.config_file.write_text(text.replace("[heat]\n", "[heat]\ncontrol = false\n"))
        listener.client.publish(node.topic("control"), "reload", "me")
        assert listener.client.next_json()["restart_needed"] == []
        assert "slowed" not in listener.ask(QUESTION)["timings"]


def test_want_of_memory_costs_the_cache_and_then_new_requests(hot_node, fake):
    node = hot_node()
    with Listener(node) as listener:
        cached = lambda reply: reply["timings"]["cached_tokens"]
        first = listener.ask(QUESTION)
        assert cached(listener.ask(QUESTION)) > 5
        fake.stall(15, 0)
        event, _ = listener.level_while_asking("memory", QUESTION)
        assert event["level"] == "tight"
        for _ in range(2):
            reply = listener.ask(QUESTION)
            assert cached(reply) == 0 and text_of(reply) == text_of(first)
        assert listener.strain()["memory"] == "tight"

        running, waiting = listener.publish(STORY), listener.publish(QUESTION)
        fake.stall(50, 30)
        assert listener.level("memory")["level"] == "refusing"
        listener.reply(running)
        assert text_of(listener.reply(waiting)) == text_of(first)
        listener.publish(QUESTION)
        error = listener.client.next_json()["error"]
        assert error["code"] == "low_memory" and error["retry_after_seconds"] >= 1

        fake.stall(0, 0)
        assert listener.level("memory")["level"] == "tight"
        assert listener.level("memory")["level"] == "normal"
        listener.ask(QUESTION)
        assert cached(listener.ask(QUESTION)) > 5

        # A kernel that tells of no stalls: what is available counts.
        (fake.root / "proc/pressure/memory").unlink()
        fake.available(3)
        event, _ = listener.level_while_asking("memory", QUESTION)
        assert event["level"] == "refusing" and event["available_bytes"] == 3 << 20
        fake.available(8000)
        assert [listener.level("memory")["level"] for _ in range(2)] == ["tight", "normal"]
    assert "the machine is short of memory" in node.log()


@pytest.fixture
def refused(chaskid, smollm2_folder, tmp_path, fake, free_port):
    """A function that gives the log of a daemon that does not start."""

    def start(**sections) -> str:
        sections["metrics"] = f'system-root = "{fake.root}"'
        daemon = Chaskid(chaskid, tmp_path, smollm2_folder, free_port(), "small", **sections)
        daemon.log_file.unlink(missing_ok=True)
        try:
            assert daemon.start().process.wait(60) == 1
        finally:
            daemon.stop()
        return daemon.log()

    return start


def test_a_model_that_does_not_fit_is_refused_with_what_would(refused, fake):
    log = refused(memory="budget-mib = 170", model="context-length = 4096")
    assert "context-length = 4096 needs " in log and "the memory budget is 170 MiB" in log, log
    assert 'kv-cache = "int8" would fit' in log and "context-length = 2" in log, log
    assert "a model of at most " in log, log
    # Not even with the shortest context.
    log = refused(memory="budget-mib = 60")
    assert "a model of at most " in log and "int8" not in log, log
    log = refused(memory="budget-mib = 5")
    assert "no model fits" in log and "[memory]" in log, log
    # By the limit of the cgroup.
    fake.cgroup(80 << 20)
    assert "the memory budget is 80 MiB" in refused(), log


def test_the_context_is_the_longest_that_fits(hot_node):
    node = hot_node(memory="recover-seconds = 1\nbudget-mib = 170")
    with Client(node.port) as client:
        client.subscribe(node.topic("info"))
        context = client.next_json()["context_length"]
    assert 1024 <= context < 4096 and context % 128 == 0
    assert "there is no memory for a context of 4096" in node.log()
    assert f"context_length={context}" in node.log()
