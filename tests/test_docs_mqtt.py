"""Every example of docs/mqtt.md, run as it stands there, by Mosquitto's own programs and others."""

import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from tools.certificates import Authority
from tools.daemon import Chaskid
from tools.docs import Block, blocks, differences
from tools.mosquitto import Mosquitto
from tools.mqtt_client import Client, user_property
from tools.programs import CHECKOUT, target_dir
from tools.shell import Shell

PAGE = CHECKOUT / "docs" / "mqtt.md"
BLOCKS = blocks(PAGE)
CHECKED: list[str] = []
QUESTION = "What is the capital of Peru?"
STORY = "Tell me a very long story about a dog and a cat."
# What the examples call the model, and the one in the place of which it is loaded.
MODEL, OTHER_MODEL = "smollm2", "llama-3.2-1b"


def example(*names: str):
    """Hands the blocks of these names to a test, which is then the one that checks them."""

    def mark(function):
        assert function.__name__.startswith("test_")
        CHECKED.extend(names)
        shown = tuple(BLOCKS[name] for name in names)
        return pytest.mark.parametrize("shown", [shown], ids=[", ".join(names)])(function)

    return mark


def test_no_example_is_passed_over():
    assert sorted(CHECKED) == sorted(BLOCKS)
    assert {block.language for block in BLOCKS.values()} == {
        "sh", "text", "json", "toml", "python", "js"
    }  # fmt: skip


@dataclass
class Board:
    """The node `board` of the examples, at a broker of its own."""

    daemon: Chaskid
    broker: Mosquitto
    shell: Shell

    @property
    def url(self) -> str:
        return f"mqtt://{self.broker.host}:{self.broker.port}"


@pytest.fixture(scope="module")
def boards(chaskid, smollm2_folder, tmp_path_factory):
    """A factory of them: `boards(control="drain = true")`."""
    started = []

    def factory(**sections: str) -> Board:
        folder = tmp_path_factory.mktemp("board")
        (folder / MODEL).symlink_to(smollm2_folder)
        broker = Mosquitto(folder).start()
        started.append(broker)
        daemon = Chaskid(chaskid, folder, folder / MODEL, broker.port, "board", **sections).start()
        started.append(daemon)
        daemon.wait_for_log("connected and subscribed")
        bin = folder / "bin"
        bin.mkdir()
        return Board(daemon, broker, Shell(bin, broker))

    yield factory
    for each in reversed(started):
        each.stop()


@pytest.fixture(scope="module")
def board(boards):
    """With the default configuration, but greedy."""
    return boards()


@pytest.fixture(scope="module")
def house(boards, smollm2_folder, tmp_path_factory):
    """Of the group `house`, and it takes all commands."""
    models = tmp_path_factory.mktemp("models")
    (models / OTHER_MODEL).symlink_to(smollm2_folder)
    return boards(node='group = "house"', control=f'drain = true\nmodels-folder = "{models}"')


@pytest.fixture
def me(board):
    """A client at the broker of `board`, which hears the replies to its ids and its inbox."""
    with Client(board.broker.port) as client:
        client.subscribe("chaski/board/reply/+")
        client.subscribe("me")
        yield client


def assert_like(shown: Block, given: dict) -> None:
    """JSON as an example shows it."""
    assert not differences(json.loads(shown.text), given), f"{shown.name}: {given}"


def finished(lines: list[str]) -> bool:
    """Whether the last message of a streamed answer is there."""
    return bool(lines) and json.loads(lines[-1])["choices"][0]["finish_reason"] is not None


def text_of(reply: dict) -> str:
    return reply["choices"][0]["message"]["content"]


# Questions as plain text.


@example("ask/sh/1", "ask/text/1")
def test_a_prompt_and_its_answer(board, shown):
    commands, answer = shown
    (line,) = board.shell.run(commands.text)
    # How it goes on may depend on the processor's kernels.
    expected = "The capital of Peru is Lima"
    assert line.startswith(expected) and answer.text.startswith(expected)


@example("ask/sh/2")
def test_a_prompt_with_a_response_topic(board, shown):
    (line,) = board.shell.run(shown[0].text)
    assert "Lima" in line


@example("ask/text/2")
def test_an_error_as_plain_text(board, me, shown):
    me.publish("chaski/board/ask", "", "me")
    message = me.next()
    assert message.payload.decode() == shown[0].text.strip()
    assert user_property(message, "error") == "empty_prompt"


# Chat.


@example("chat/sh/1", "the reply/json/1")
def test_a_chat_request_and_its_reply(board, shown):
    commands, reply = shown
    (line,) = board.shell.run(commands.text)
    assert_like(reply, json.loads(line))
    assert "Lima" in text_of(json.loads(line))


@example("streamed/json/1", "streamed/json/2")
def test_the_first_and_the_last_message_of_a_stream(board, me, shown):
    first, last = shown
    request = {"id": "q2", "stream": True, "messages": [{"role": "user", "content": QUESTION}]}
    me.publish("chaski/board/chat", request)
    messages, replies = [], []
    while not replies or replies[-1]["choices"][0]["finish_reason"] is None:
        messages.append(me.next())
        replies.append(json.loads(messages[-1].payload))
    assert_like(first, replies[0])
    assert_like(last, replies[-1])
    assert [reply["sequence"] for reply in replies] == list(range(len(replies)))
    # What the page says to those with small buffers.
    assert len(messages[-1].payload) < 550
    for message, reply in zip(messages[:-1], replies):
        assert len(message.payload) < 300 + len(reply["choices"][0]["delta"]["content"].encode())
    assert replies[0]["choices"][0]["delta"] == json.loads(first.text)["choices"][0]["delta"]


@example("streamed/sh/1", "streamed/json/3")
def test_a_stream_with_the_whole_text_at_its_end(board, shown):
    commands, last = shown
    lines = board.shell.run(commands.text, done=finished)
    assert_like(last, json.loads(lines[-1]))
    pieces = [json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines]
    assert "".join(pieces) == text_of(json.loads(lines[-1]))


@example("errors/json/1")
def test_busy(board, me, shown):
    # One runs and eight wait, of clients that have a share of four; QoS 1 would wait its turn.
    names = [f"fill{number}" for number in range(12)]
    refused = set()
    for number, name in enumerate(names):
        story = [{"role": "user", "content": STORY}]
        request = {"id": name, "user": f"user{number % 4}", "messages": story}
        me.publish("chaski/board/chat", request, qos=0)
    request = {"id": "q3", "messages": [{"role": "user", "content": QUESTION}]}
    me.publish("chaski/board/chat", request, qos=0)
    while (reply := me.next_json())["id"] != "q3":
        assert reply["error"]["code"] == "busy", reply
        refused.add(reply["id"])
    assert_like(shown[0], reply)
    # Only the estimate differs.
    message, expected = (
        re.sub(r"about \d+ s", "", each["error"]["message"])
        for each in (reply, json.loads(shown[0].text))
    )
    assert message == expected
    taken = set(names) - refused
    assert len(taken) in (8, 9)
    # Those that wait first, so that none begins.
    for name in sorted(taken, reverse=True):
        me.publish("chaski/board/cancel", name)
    while taken:
        taken.remove(me.next_json()["id"])


# Cancelling.


def start_story(me, **request) -> None:
    """Sends one that runs for long, and waits until it does."""
    story = [{"role": "user", "content": STORY}]
    inbox = request.pop("inbox", None)
    me.publish("chaski/board/chat", {"messages": story, "stream": True, **request}, inbox)
    assert me.next_json()["choices"][0]["finish_reason"] is None


def end_of_story(me) -> str:
    """Why it ended."""
    while True:
        reply = me.next_json()
        if "choices" in reply and (reason := reply["choices"][0]["finish_reason"]):
            return reason


@example("cancel/sh/1")
def test_a_cancel_by_the_id_alone(board, me, shown):
    start_story(me, id="q1")
    board.shell.run(shown[0].text, done=lambda lines: not lines)
    assert end_of_story(me) == "cancelled"


@example("cancel/json/1", "cancel/json/2")
def test_a_cancel_as_json_and_its_answer(board, me, shown):
    cancel, confirmed = shown
    start_story(me, id="q1", inbox="me")
    with Client(board.broker.port) as other:
        # Another device of the same client, which finds its answer among those to the first.
        other.subscribe("me")
        other.publish("chaski/board/cancel", cancel.text, "me", b"7")
        while getattr((message := other.next()).properties, "CorrelationData", None) != b"7":
            pass
    assert json.loads(message.payload) == json.loads(confirmed.text)
    assert end_of_story(me) == "cancelled"


# The queue, groups and commands.


@example("the queue/sh/1")
def test_a_prompt_that_is_urgent_and_expires(board, me, shown):
    me.subscribe("chaski/board/answer")
    board.shell.run(shown[0].text, done=lambda lines: not lines)
    message = me.next()
    assert b"Lima" in message.payload and user_property(message, "status") == "done"


@example("groups/sh/1")
def test_a_question_to_a_group(house, shown):
    (line,) = house.shell.run(shown[0].text)
    reply = json.loads(line)
    assert (reply["id"], reply["node"]) == ("g1", "board") and "Lima" in text_of(reply)


@example("control/sh/1", "control/json/2")
def test_drain_and_resume(house, shown):
    commands, drained = shown
    with Client(house.broker.port) as watcher:
        status = "chaski/board/status"
        watcher.subscribe(status)
        watcher.wait_for(status, "online")
        (line,) = house.shell.run(commands.text)
        assert json.loads(line) == json.loads(drained.text)
        watcher.wait_for(status, "draining")
        watcher.wait_for(status, "online")


@example("control/json/1", "control/json/3")
def test_another_model(house, shown):
    command, loaded = shown
    with Client(house.broker.port) as client:
        client.subscribe("me")
        client.publish("chaski/board/control", command.text, "me")
        assert_like(loaded, client.next_json())


# What the node says of itself.


@example("status/sh/1", "status/text/1")
def test_the_status(board, shown):
    commands, status = shown
    assert board.shell.run(commands.text) == status.text.splitlines()


@example("info/json/1")
def test_the_info(boards, shown):
    machine = CHECKOUT / "tests/data/boards/raspberry-pi-4b"
    board = boards(metrics=f'system-root = "{machine}"')
    with Client(board.broker.port) as client:
        client.subscribe("chaski/board/info")
        assert_like(shown[0], client.next_json())


@example("schema/sh/1")
def test_the_schema(board, shown):
    (line,) = board.shell.run(shown[0].text)
    fields = json.loads(line)["properties"]
    # Each has a row in the table of fields.
    table = re.findall(r"^\| (`.*`) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    described = {name for row in table for name in re.findall(r"`(\w+)`", row)}
    refused = {"n", "logprobs", "logit_bias", "functions", "response_format"}
    refused |= {"presence_penalty", "frequency_penalty"}
    assert fields.keys() - refused <= described


@example("metrics/json/1")
def test_the_metrics(boards, tmp_path, shown):
    machine = tmp_path / "machine"
    files = {
        "proc/meminfo": Path("/proc/meminfo").read_text(),
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
        "sys/class/thermal/thermal_zone0/temp": "51500",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "10000",
    }
    for name, text in files.items():
        file = machine / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    board = boards(metrics=f'interval-seconds = 1\nsystem-root = "{machine}"')
    with Client(board.broker.port) as client:
        client.subscribe("chaski/board/answer")
        client.publish("chaski/board/ask", QUESTION)
        assert b"Lima" in client.next().payload
        client.subscribe("chaski/board/metrics")
        metrics = client.next_json()
    expected = json.loads(shown[0].text)
    # A count here, and elsewhere what a cancel has done.
    expected["requests"]["cancelled"] = metrics["requests"]["cancelled"]
    assert not differences(expected, metrics), metrics
    for same in ("temperature_celsius", "throttling"):
        assert metrics[same] == expected[same]


@example("event/json/1", "event/json/2")
def test_events(board, me, shown):
    answered, failed = shown
    messages = [{"role": "user", "content": QUESTION}]
    with Client(board.broker.port) as listener:
        listener.subscribe("chaski/board/event")
        me.publish("chaski/board/chat", {"id": "q1", "messages": messages})
        assert_like(answered, listener.next_json())
        messages[0]["content"] = "x " * 30_000
        me.publish("chaski/board/chat", {"id": "q3", "messages": messages})
        assert listener.next_json() == json.loads(failed.text)
    for _ in range(2):
        me.next()


# The configuration.


@example("tls and credentials/toml/1", "tls and credentials/toml/2")
def test_tls_and_credentials(chaskid, smollm2_folder, run, tmp_path, shown):
    section, credentials = shown
    signed = Authority(tmp_path).sign("board", "DNS:board")
    (tmp_path / "broker-credentials").write_text(credentials.text)
    for secret in (signed.key, tmp_path / "broker-credentials"):
        secret.chmod(0o600)
    file = tmp_path / "chaskid.toml"
    file.write_text(f'{section.text}\n[model]\nfolder = "{smollm2_folder}"\n')
    valid = run(chaskid, "validate", file)
    assert valid.stdout.endswith(": valid\n") and valid.stderr == ""
    # It reads the files that are named, not only their names.
    for name in re.findall(r'file = "(.*)"', section.text):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text("nothing of use\n")
        refused = run(chaskid, "validate", file, check=False)
        assert refused.returncode == 1 and name in refused.stderr, refused
        (tmp_path / name).write_text(text)


# Programs.


def assert_asks(run, board, *command) -> None:
    """A program that prints the answer to its argument, or else the error."""
    address = {"MQTT_URL": board.url}
    answer = run(*command, QUESTION, env=address)
    assert "Lima" in answer.stdout and answer.stdout.count("Lima") == 1, answer
    refused = run(*command, "x" * 70_000, env=address, check=False)
    assert refused.returncode == 1 and refused.stdout == "", refused
    assert refused.stderr.startswith("prompt_too_large: "), refused


@example("python/python/1")
def test_python(board, run, tmp_path, shown):
    program = tmp_path / "ask.py"
    program.write_text(shown[0].text)
    assert_asks(run, board, sys.executable, program)


def test_a_microcontroller(board):
    # Told in words, but for the request.
    page = PAGE.read_text(encoding="utf-8")
    (request,) = re.findall(r"^\d\. Publish `(.*)` on$", page, re.MULTILINE)
    messages = json.dumps([{"role": "user", "content": QUESTION}])
    identity = json.loads(request.replace("[…]", "[]"))["id"]
    topic = f"chaski/board/reply/{identity}"
    assert f"`{topic}`" in page
    with Client(board.broker.port, protocol=paho.MQTTv311) as device:
        device.subscribe("chaski/board/reply/#")
        device.publish("chaski/board/chat", request.replace("[…]", messages), qos=0)
        pieces = []
        while True:
            message = device.next()
            assert message.topic == topic
            (choice,) = json.loads(message.payload)["choices"]
            if choice["finish_reason"]:
                break
            pieces.append(choice["delta"]["content"])
    assert "Lima" in "".join(pieces)


@example("javascript/js/1")
def test_javascript(board, run, tmp_path, shown):
    node, modules = shutil.which("node"), target_dir() / "node" / "node_modules"
    if node is None or not modules.is_dir():
        raise FileNotFoundError(f"no node, or no {modules}: run `tests/run packages node` first")
    (tmp_path / "node_modules").symlink_to(modules)
    program = tmp_path / "ask.mjs"
    program.write_text(shown[0].text)
    assert_asks(run, board, node, program)
