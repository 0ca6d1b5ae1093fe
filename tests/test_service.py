"""Cancel, queue, expiry and repeated requests: chaskid with a real model behind Mosquitto."""

import json
import time

import pytest

from tools.daemon import Chaskid
from tools.mosquitto import Mosquitto
from tools.mqtt_client import Client, user_property

NODE = "servicenode"
STORY = "Tell me a very long story about a dog and a cat."
LIMITS = """
queue-depth = 4
per-client-depth = 3
max-tokens = 2000
rate-per-minute = 60
rate-burst = 40
response-prefixes = ["me/", "you/"]
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """One broker for all."""
    broker = Mosquitto(tmp_path_factory.mktemp("mosquitto")).start()
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def node(broker, chaskid, smollm2_folder, tmp_path_factory):
    """One daemon for all."""
    folder = tmp_path_factory.mktemp("chaskid")
    daemon = Chaskid(chaskid, folder, smollm2_folder, broker.port, NODE, limits=LIMITS).start()
    with Client(broker.port) as client:
        client.subscribe(daemon.topic("status"))
        client.wait_for(daemon.topic("status"), "online")
    yield daemon
    daemon.stop()


@pytest.fixture
def me(broker, node, request):
    """A client with an inbox of its own, so that tests do not share a pace."""
    with Client(broker.port) as client:
        client.inbox = f"me/{request.node.name}"
        client.subscribe(client.inbox)
        yield client


def chat(text: str, **fields) -> dict:
    return {"messages": [{"role": "user", "content": text}], **fields}


def start_story(me, node, name: str) -> None:
    """Sends a request that runs for long, and waits until it does."""
    me.publish(node.topic("chat"), chat(STORY, id=name, stream=True), me.inbox)
    assert me.next_json()["id"] == name


def end_of(me, name: str):
    """The last message of a streamed answer."""
    while True:
        message = me.next()
        reply = json.loads(message.payload)
        if reply["id"] == name and reply["choices"][0]["finish_reason"]:
            return message, reply


def test_a_running_request_is_cancelled_and_the_next_one_goes_on(me, node):
    start_story(me, node, "long")
    me.publish(node.topic("chat"), chat("Say yes.", id="next", max_tokens=2), me.inbox)
    me.publish(node.topic("cancel"), "long")
    message, reply = end_of(me, "long")
    assert reply["choices"][0]["finish_reason"] == "cancelled"
    assert reply["usage"]["completion_tokens"] < 2000
    assert user_property(message, "status") == "cancelled"
    reply = me.next_json()
    assert reply["id"] == "next" and reply["choices"][0]["finish_reason"] != "cancelled"


def test_a_waiting_request_is_cancelled_and_the_running_one_is_not(me, node):
    start_story(me, node, "runs")
    me.publish(node.topic("chat"), chat("Say yes.", id="waits"), me.inbox)
    me.publish(node.topic("cancel"), {"id": "waits"}, me.inbox, b"7")
    seen = {}
    while len(seen) < 2:
        message = me.next()
        reply = json.loads(message.payload)
        if reply["id"] == "waits":
            seen["cancel" if "cancelled" in reply else "answer"] = (message, reply)
    message, reply = seen["cancel"]
    assert reply == {"id": "waits", "cancelled": 1}
    assert message.properties.CorrelationData == b"7"
    message, reply = seen["answer"]
    assert reply["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": ""},
        "finish_reason": "cancelled",
    }
    assert reply["usage"]["total_tokens"] == 0
    me.publish(node.topic("cancel"), "runs")
    assert end_of(me, "runs")[1]["usage"]["completion_tokens"] > 0


def test_a_prompt_is_cancelled_by_its_correlation_data(me, node):
    taken = node.log().count(" request ")
    me.publish(node.topic("ask"), STORY, me.inbox, b"\x01")
    while node.log().count(" request ") == taken:
        time.sleep(0.02)
    me.publish(node.topic("cancel"), "", me.inbox, b"\x01")
    by_status = {}
    for _ in range(2):
        message = me.next()
        by_status[user_property(message, "status")] = message
    assert json.loads(by_status["done"].payload) == {"cancelled": 1}
    answer = by_status["cancelled"]
    assert user_property(answer, "finish-reason") == "cancelled"
    assert user_property(answer, "node") == NODE
    assert user_property(answer, "error") is None


def test_a_cancel_of_nothing(me, node):
    me.publish(node.topic("cancel"), "nothing", me.inbox)
    message = me.next()
    assert json.loads(message.payload)["error"]["code"] == "not_found"
    assert user_property(message, "error") == "not_found"


def test_the_urgent_go_first_and_clients_take_turns(me, broker, node):
    with Client(broker.port) as you:
        start_story(me, node, "first")
        for topic, name, priority in [
            (me.inbox, "me1", "normal"),
            (me.inbox, "me2", "normal"),
            ("you/inbox", "you1", "normal"),
            (me.inbox, "me3", "high"),
        ]:
            request = chat("Say yes.", id=name, max_tokens=1, priority=priority)
            you.publish(node.topic("chat"), request, topic)
        you.subscribe("you/inbox")
        # Full now; with QoS 1 the broker would keep it until there is room.
        me.publish(node.topic("chat"), chat("Say yes.", id="more"), me.inbox, qos=0)
        me.publish(node.topic("cancel"), "first", "me/elsewhere")
        me.publish(node.topic("cancel"), "first")
        order = []
        while len(order) < 5:
            message = me.next()
            reply = json.loads(message.payload)
            if "error" in reply:
                assert reply["id"] == "more" and reply["error"]["code"] == "busy"
                assert reply["error"]["retry_after_seconds"] > 0
                assert int(user_property(message, "retry-after")) >= 1
                order.append("busy")
            elif reply["choices"][0]["finish_reason"]:
                order.append(reply["id"])
        assert order == ["busy", "first", "me3", "me1", "me2"]
        assert you.next_json()["id"] == "you1"


def test_a_request_that_expires_is_answered_then(me, node):
    start_story(me, node, "long")
    request = chat("Say yes.", id="short-lived")
    me.publish(node.topic("chat"), request, me.inbox, MessageExpiryInterval=1)
    while True:
        reply = me.next_json()
        if reply["id"] == "short-lived":
            break
        assert reply["choices"][0]["finish_reason"] is None, "the story ended before"
    assert reply["error"]["code"] == "expired"
    me.publish(node.topic("cancel"), "long")
    end_of(me, "long")


def test_the_same_request_again_has_the_same_answer(me, node):
    # Sampled: computed again it would be another, but for the seed.
    request = chat("Name an animal.", id="again", max_tokens=12, temperature=1.5)
    me.publish(node.topic("chat"), request, me.inbox)
    first = me.next_json()
    me.publish(node.topic("chat"), request, me.inbox)
    assert me.next_json() == first
    assert node.log().count("answered again") == 1

    me.publish(node.topic("chat"), {**request, "stream": True}, me.inbox)
    text, sequence = "", -1
    while True:
        chunk = me.next_json()
        choice = chunk["choices"][0]
        text, sequence = text + choice["delta"].get("content", ""), chunk["sequence"]
        if choice["finish_reason"]:
            break
    me.publish(node.topic("chat"), {**request, "stream": True}, me.inbox)
    whole = me.next_json()
    assert whole["choices"][0]["message"]["content"] == text and whole["sequence"] == sequence


def test_response_topics_that_are_not_allowed(me, node):
    me.subscribe(node.topic("reply/+"))
    me.publish(node.topic("chat"), chat("Say yes.", id="astray"), "elsewhere")
    reply = me.next_json()
    assert reply["error"]["code"] == "invalid_response_topic" and "me/" in reply["error"]["message"]


def test_correlation_data_that_is_too_long(me, node):
    me.publish(node.topic("chat"), chat("Say yes.", id="long"), me.inbox, b"x" * 4097)
    message = me.next()
    assert json.loads(message.payload)["error"]["code"] == "invalid_request"
    assert not hasattr(message.properties, "CorrelationData")


def test_a_client_that_asks_too_often(me, node):
    for _ in range(45):
        me.publish(node.topic("ask"), "", me.inbox, qos=0)
    codes = [user_property(me.next(), "error") for _ in range(45)]
    assert codes[:40] == ["empty_prompt"] * 40 and codes[44] == "rate_limited"
