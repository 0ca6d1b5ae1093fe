"""chaskid with a real model behind a real Mosquitto, asked by clients none of us wrote."""

import json
import subprocess
import time

import paho.mqtt.client as paho
import pytest

from tools.daemon import Chaskid
from tools.mosquitto import Mosquitto
from tools.mqtt_client import Client, user_property

NODE = "testnode"
QUESTION = "What is the capital of Peru?"
LIMITS = """
queue-depth = 2
per-client-depth = 2
max-tokens = 48
max-prompt-bytes = 6000
max-payload-bytes = 8000
"""
# More tokens than the context below has.
LONG_TEXT = "one two three four five six seven eight nine ten " * 40
MODEL = "context-length = 256"
# A message for each token, however fast they come.
EACH_TOKEN = "chunk-ms = 0"


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """One broker for the tests that do not disturb it."""
    broker = Mosquitto(tmp_path_factory.mktemp("mosquitto")).start()
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def node(broker, chaskid, smollm2_folder, tmp_path_factory):
    """One daemon for the tests that do not disturb it."""
    folder = tmp_path_factory.mktemp("chaskid")
    daemon = Chaskid(
        *(chaskid, folder, smollm2_folder, broker.port, NODE),
        limits=LIMITS,
        model=MODEL,
        stream=EACH_TOKEN,
    ).start()
    with Client(broker.port) as client:
        client.subscribe(daemon.topic("status"))
        client.wait_for(daemon.topic("status"), "online")
    yield daemon
    daemon.stop()


@pytest.fixture
def client(broker, node):
    """A paho client at the shared broker."""
    with Client(broker.port) as client:
        yield client


@pytest.fixture
def own_daemon(chaskid, smollm2_folder, tmp_path):
    """A factory of daemons a test may treat as it likes."""
    daemons = []

    def factory(port: int, **sections: str) -> Chaskid:
        daemon = Chaskid(chaskid, tmp_path, smollm2_folder, port, f"own{len(daemons)}", **sections)
        daemons.append(daemon)
        return daemon.start()

    yield factory
    for daemon in daemons:
        daemon.stop()


def chat(text: str = QUESTION, **fields) -> dict:
    return {"messages": [{"role": "user", "content": text}], **fields}


def stream_of(client: Client) -> list[dict]:
    """The choices of a streamed answer, all messages of it."""
    choices = []
    while not choices or choices[-1]["finish_reason"] is None:
        (choice,) = client.next_json()["choices"]
        choices.append(choice)
    return choices


def joined(choices: list[dict]) -> str:
    """The text of a streamed answer's pieces."""
    return "".join(choice["delta"].get("content", "") for choice in choices)


def subscriber(broker, topic: str, *options: str) -> subprocess.Popen:
    """mosquitto_sub that ends after one message, once it has said that it is subscribed."""
    process = subprocess.Popen(
        ["stdbuf", "-oL", "mosquitto_sub", "-h", broker.host, "-p", str(broker.port), "-t", topic]
        + ["-q", "1", "-C", "1", "-W", "120", "-d", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("Subscribed"):
            return process
    raise AssertionError("mosquitto_sub did not subscribe")


def publish(run, broker, *options: str) -> None:
    run("mosquitto_pub", "-h", broker.host, "-p", str(broker.port), "-q", "1", *options)


# The smallest client: text in, text out.


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_mosquitto_pub_asks_and_mosquitto_sub_hears(run, broker, node, version):
    process = subscriber(broker, node.topic("answer"), "-V", version)
    publish(run, broker, "-V", version, "-t", node.topic("ask"), "-m", QUESTION)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "Lima" in output


def test_mosquitto_rr_gets_its_answer(run, broker, node):
    result = run(
        *("mosquitto_rr", "-V", "5", "-h", broker.host, "-p", str(broker.port), "-q", "1"),
        *("-t", node.topic("ask"), "-e", "rr/answers", "-m", QUESTION, "-W", "120"),
        *("-D", "publish", "correlation-data", "order 66", "-F", "%D|%C|%p"),
    )
    correlation, content_type, answer = result.stdout.strip().split("|", 2)
    assert correlation == "order 66"
    assert content_type == "text/plain; charset=utf-8"
    assert "Lima" in answer


def test_errors_of_ask_are_plain_text(client, node):
    client.subscribe(node.topic("answer"))
    for payload, code in [
        (b"", "empty_prompt"),
        (b"caf\xe9", "invalid_utf8"),
        (b"x" * 6001, "prompt_too_large"),
        (b"x" * 8001, "payload_too_large"),
        (LONG_TEXT, "context_length_exceeded"),
    ]:
        client.publish(node.topic("ask"), payload)
        message = client.next()
        assert message.payload.startswith(b"error: "), message.payload
        assert user_property(message, "error") == code


# Chat.


def test_chat_with_response_topic_and_correlation_data(client, node):
    client.subscribe("me/inbox")
    client.publish(node.topic("chat"), chat(id="q1", max_tokens=20), "me/inbox", b"\x00\xff\x01")
    message = client.next()
    assert message.properties.CorrelationData == b"\x00\xff\x01"
    assert message.properties.ContentType == "application/json"
    assert message.properties.PayloadFormatIndicator == 1
    assert not message.retain
    reply = json.loads(message.payload)
    assert (reply["id"], reply["object"]) == ("q1", "chat.completion")
    assert abs(reply["created"] - time.time()) < 600
    (choice,) = reply["choices"]
    assert choice["index"] == 0 and choice["message"]["role"] == "assistant"
    assert "Lima" in choice["message"]["content"]
    assert choice["finish_reason"] == "stop"
    usage, timings = reply["usage"], reply["timings"]
    assert usage["prompt_tokens"] > 5 and 1 <= usage["completion_tokens"] <= 20
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert timings["prefill_tokens"] + timings["cached_tokens"] == usage["prompt_tokens"]
    assert timings["prefill_seconds"] > 0 and timings["decode_tokens_per_second"] > 0


def test_a_stream_is_the_same_answer_in_order(client, node):
    client.subscribe(node.topic("reply/+"))
    client.publish(node.topic("chat"), chat(id="whole", max_tokens=12))
    whole = client.next_json()["choices"][0]
    client.publish(node.topic("chat"), chat(id="parts", max_tokens=12, stream=True))
    chunks = []
    while not chunks or chunks[-1]["choices"][0]["finish_reason"] is None:
        message = client.next()
        assert message.topic == node.topic("reply/parts")
        chunks.append(json.loads(message.payload))
    assert [chunk["sequence"] for chunk in chunks] == list(range(len(chunks)))
    assert {(c["id"], c["object"], c["created"]) for c in chunks} == {
        ("parts", "chat.completion.chunk", chunks[0]["created"])
    }
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["role"] == "assistant" and len(chunks) > 3
    assert "".join(d.get("content", "") for d in deltas) == whole["message"]["content"]
    assert chunks[-1]["choices"][0]["finish_reason"] == whole["finish_reason"]
    assert all("usage" not in chunk for chunk in chunks[:-1])
    assert chunks[-1]["usage"]["completion_tokens"] > 0
    assert chunks[-1]["timings"]["cached_tokens"] > 0, "the same prompt again"


def test_a_stream_may_end_with_the_whole_text(client, node):
    client.subscribe("me/inbox")
    options = {"include_text": True}
    client.publish(
        node.topic("chat"), chat(max_tokens=12, stream=True, stream_options=options), "me/inbox"
    )
    choices = stream_of(client)
    assert all("message" not in choice for choice in choices[:-1])
    assert choices[-1]["message"] == {"role": "assistant", "content": joined(choices)}
    assert "Lima" in joined(choices)


def test_tokens_are_put_together(mosquitto, own_daemon):
    broker = mosquitto()
    # A few tokens never take so long: only the first piece and the rest are shorter.
    daemon = own_daemon(broker.port, stream="chunk-ms = 5000\nchunk-bytes = 20")
    with Client(broker.port) as client:
        client.subscribe(daemon.topic("status"))
        client.wait_for(daemon.topic("status"), "online")
        client.subscribe("me/inbox")
        story = chat("Tell me a long story about a dog.", max_tokens=30, stream=True)
        client.publish(daemon.topic("chat"), story, "me/inbox")
        first, *middle, _rest, end = stream_of(client)
        assert all(len(piece["delta"]["content"].encode()) >= 20 for piece in middle)
        assert first["delta"]["content"] and len(middle) >= 2
        assert end["delta"] == {}


def test_a_client_of_mqtt_3_1_1_uses_the_id(broker, node):
    with Client(broker.port, protocol=paho.MQTTv311) as client:
        client.subscribe(node.topic("reply/old-device"))
        client.publish(node.topic("chat"), chat(id="old-device", max_tokens=5, seed=1))
        reply = client.next_json()
    assert reply["id"] == "old-device"
    assert reply["usage"]["completion_tokens"] <= 5


def test_stop_and_length(client, node):
    client.subscribe("me/inbox")
    client.publish(node.topic("chat"), chat(max_tokens=2), "me/inbox")
    reply = client.next_json()
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["usage"]["completion_tokens"] == 2
    assert reply["id"].startswith("chatcmpl-")
    client.publish(node.topic("chat"), chat(stop="Lima"), "me/inbox")
    choice = client.next_json()["choices"][0]
    assert choice["finish_reason"] == "stop" and "Lima" not in choice["message"]["content"]


def test_requests_the_daemon_refuses(client, node):
    client.subscribe(node.topic("reply/+"))
    many = "x" * 8001
    for payload, code, topic in [
        (b'{"messages": [', "invalid_json", "reply/unknown"),
        (b"[" * 7000, "invalid_json", "reply/unknown"),
        (b'{"id": "a", "x": "\xff"}', "invalid_utf8", "reply/unknown"),
        (many, "payload_too_large", "reply/unknown"),
        (chat(), "no_reply_address", "reply/unknown"),
        (chat(id="a/b"), "invalid_request", "reply/unknown"),
        ({"id": "e1"}, "invalid_request", "reply/e1"),
        (chat(id="e2", temperature="hot"), "invalid_request", "reply/e2"),
        (chat(id="e3", n=2), "unsupported", "reply/e3"),
        (chat("x" * 6001, id="e4"), "prompt_too_large", "reply/e4"),
        (chat(LONG_TEXT, id="e5"), "context_length_exceeded", "reply/e5"),
    ]:
        client.publish(node.topic("chat"), payload)
        message = client.next()
        error = json.loads(message.payload)["error"]
        assert error["code"] == code, error
        assert message.topic == node.topic(topic)
        assert user_property(message, "error") == code
        assert error["message"] and error["type"]


def test_the_context_error_names_both_figures(client, node):
    client.subscribe("me/inbox")
    client.publish(node.topic("chat"), chat(LONG_TEXT), "me/inbox")
    message = client.next_json()["error"]["message"]
    assert "256" in message and "tokens" in message


def test_bad_response_topics_are_not_used(client, node):
    client.subscribe("#")
    # What the node says of itself meanwhile, and our own requests.
    others = {node.topic(name) for name in ("chat", "status", "info", "schema", "metrics", "event")}
    for bad in [node.topic("ask"), node.topic("chat"), node.topic("status"), "$SYS/broker/x"]:
        client.publish(node.topic("chat"), chat(id="bad"), bad)
        message = client.next()
        while message.topic in others or message.topic.startswith("homeassistant/"):
            message = client.next()
        assert message.topic == node.topic("reply/bad"), bad
        assert json.loads(message.payload)["error"]["code"] == "invalid_response_topic"


def test_a_payload_far_too_large_does_no_harm(client, node):
    client.subscribe("me/inbox")
    # The broker may not send it, by MQTT 5; nobody can answer it.
    client.publish(node.topic("chat"), b"x" * 2_000_000, "me/inbox")
    client.publish(node.topic("chat"), chat(id="after", max_tokens=2), "me/inbox")
    assert client.next_json()["id"] == "after"


def test_busy_beyond_the_queue_and_in_order(client, node):
    client.subscribe("me/inbox")
    story = "Tell me a long story about a dog."
    # One runs or is about to, two wait; the rest finds the queue full. With QoS 1 the
    # broker would keep it until there is room.
    for i in range(6):
        request = chat(story, id=f"b{i}", max_tokens=40)
        client.publish(node.topic("chat"), request, "me/inbox", qos=0)
    replies = [client.next_json() for _ in range(6)]
    busy = [r["id"] for r in replies if r.get("error", {}).get("code") == "busy"]
    answered = [r["id"] for r in replies if "choices" in r]
    assert answered == ["b0", "b1", "b2"]
    assert busy == ["b3", "b4", "b5"]
    client.publish(node.topic("chat"), chat(id="later", max_tokens=1), "me/inbox")
    assert client.next_json()["id"] == "later"


# What the node says of itself.


def test_status_and_info_are_retained(client, node):
    client.subscribe(node.topic("status"))
    status = client.next()
    assert status.retain and status.payload == b"online"
    client.subscribe(node.topic("info"))
    message = client.next()
    assert message.retain and message.properties.ContentType == "application/json"
    info = json.loads(message.payload)
    assert info["node"] == NODE and info["context_length"] == 256
    assert info["threads"] == 1 and info["backend"] and info["version"]
    assert info["model"]["layers"] == 30 and info["model"]["vocab_size"] == 49152
    assert info["limits"]["queue_depth"] == 2 and info["limits"]["max_tokens"] == 48


def test_the_log_has_no_prompts(client, node):
    client.subscribe("me/inbox")
    client.publish(node.topic("chat"), chat("the secret word is zanzibar", max_tokens=3), "me/inbox")
    assert "choices" in client.next_json()
    assert "zanzibar" not in node.log() and "capital of Peru" not in node.log()
    assert "answered" in node.log()


# Comings and goings.


def test_the_broker_tells_of_a_daemon_that_was_killed(mosquitto, own_daemon):
    broker = mosquitto()
    daemon = own_daemon(broker.port)
    with Client(broker.port) as client:
        client.subscribe(daemon.topic("status"))
        client.wait_for(daemon.topic("status"), "online")
        daemon.kill()
        client.wait_for(daemon.topic("status"), "offline")
    with Client(broker.port) as client:
        client.subscribe(daemon.topic("status"))
        message = client.next()
        assert message.retain and message.payload == b"offline"


def test_a_daemon_told_to_stop_says_so(mosquitto, own_daemon):
    broker = mosquitto()
    daemon = own_daemon(broker.port)
    with Client(broker.port) as client:
        client.subscribe(daemon.topic("status"))
        client.wait_for(daemon.topic("status"), "online")
        client.subscribe("me/inbox")
        # One in the middle of its answer, one that waits.
        story = "Tell me a very long story."
        client.publish(daemon.topic("chat"), chat(story, id="runs", stream=True), "me/inbox")
        client.publish(daemon.topic("chat"), chat(id="waits"), "me/inbox")
        assert client.next_json()["id"] == "runs"
        assert daemon.terminate() == 0
        while True:
            message = client.next()
            if message.topic == daemon.topic("status"):
                assert message.payload == b"offline"
                break
            # The broker keeps both requests, so neither is answered now: no end of the one
            # that ran, and nothing at all of the other.
            reply = json.loads(message.payload)
            assert reply["id"] == "runs" and reply["choices"][0]["finish_reason"] is None
    # Said by the daemon, not by the broker's last will.
    assert broker.log().count("Received DISCONNECT from chaski-") == 1


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_a_broker_that_comes_back_finds_the_daemon(mosquitto, own_daemon, how):
    broker = mosquitto()
    daemon = own_daemon(broker.port)
    with Client(broker.port) as client:
        client.subscribe(daemon.topic("status"))
        client.wait_for(daemon.topic("status"), "online")
    if how == "kill":
        broker.kill()
        broker.start()
    else:
        broker.restart()
    with Client(broker.port) as client:
        # The broker forgot all it retained, so this is published anew.
        client.subscribe(daemon.topic("#"))
        client.wait_for(daemon.topic("status"), "online")
        client.subscribe("me/inbox")
        client.publish(daemon.topic("chat"), chat(id="again", max_tokens=2), "me/inbox")
        while True:
            message = client.next()
            if message.topic == "me/inbox":
                assert json.loads(message.payload)["id"] == "again"
                break


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_outlives_the_connection(mosquitto, own_daemon, stream):
    broker = mosquitto()
    daemon = own_daemon(broker.port, stream=EACH_TOKEN)
    story = chat("Tell me a long story about a dog.", max_tokens=400, stream=stream)
    with Client(broker.port) as client:
        client.subscribe(daemon.topic("status"))
        client.wait_for(daemon.topic("status"), "online")
        client.publish(daemon.topic("chat"), story, "me/inbox")
        daemon.wait_for_log("request")
    broker.kill()
    daemon.wait_for_log("no connection to the broker")
    if not stream:
        daemon.wait_for_log("answered")
    # Held, so that it does not send its answer before there is somebody to hear it.
    daemon.pause()
    broker.start()
    with Client(broker.port) as client:
        client.subscribe("me/inbox")
        daemon.resume()
        replies = [client.next_json()]
        while replies[-1]["choices"][0]["finish_reason"] is None:
            replies.append(client.next_json())
    if stream:
        # At least once: what was in flight comes again, nothing is missing.
        numbers = sorted({reply["sequence"] for reply in replies})
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert numbers[-1] == replies[-1]["sequence"]
    else:
        assert len(replies) == 1 and replies[0]["choices"][0]["message"]["content"]


def test_a_daemon_waits_for_its_broker(mosquitto, own_daemon, free_port):
    port = free_port()
    daemon = own_daemon(port)
    daemon.wait_for_log("no connection to the broker")
    broker = mosquitto(port=port)
    with Client(broker.port) as client:
        client.subscribe(daemon.topic("status"))
        client.wait_for(daemon.topic("status"), "online")


def test_a_stopped_daemon_without_a_broker_does_not_hang(own_daemon, free_port):
    daemon = own_daemon(free_port())
    daemon.wait_for_log("no connection to the broker")
    assert daemon.terminate(timeout=5) == 0


def test_retained_requests_are_not_answered_again(mosquitto, own_daemon):
    broker = mosquitto()
    with Client(broker.port) as client:
        client.publish("chaski/own0/ask", "an old question", retain=True)
        for topic in ("ask", "answer", "status", "reply/#"):
            client.subscribe(f"chaski/own0/{topic}")
        assert client.next().topic == "chaski/own0/ask"
        daemon = own_daemon(broker.port)
        client.wait_for(daemon.topic("status"), "online")
        client.publish(daemon.topic("chat"), chat(id="new", max_tokens=1))
        assert client.next().topic == daemon.topic("reply/new")
        assert client.messages.empty()


def test_username_and_password_file(mosquitto, own_daemon, run, tmp_path):
    accounts = tmp_path / "accounts"
    run("mosquitto_passwd", "-b", "-c", accounts, "chaski", "hunter2")
    (tmp_path / "password").write_text("hunter2\n")
    broker = mosquitto(config=f"allow_anonymous false\npassword_file {accounts}\n")
    daemon = own_daemon(broker.port, broker='username = "chaski"\npassword-file = "password"')
    daemon.wait_for_log("connected and subscribed")
    stranger = own_daemon(broker.port, broker='username = "chaski"\npassword = "hunter3"')
    stranger.wait_for_log("check username, password")
    assert "hunter" not in daemon.log() + stranger.log()


# The command line.


def test_validate(chaskid, run, own_daemon, free_port, tmp_path):
    good = own_daemon(free_port()).config_file
    assert run(chaskid, "validate", good).stdout == f"{good}: valid\n"

    bad = tmp_path / "bad.toml"
    bad.write_text('[node]\nname = "a/b"\n[broker]\nport = 0\n[model]\nfolder = "nowhere"\n')
    result = run(chaskid, "validate", bad, check=False)
    assert result.returncode == 1
    assert "node.name" in result.stderr and "broker.port" in result.stderr

    bad.write_text('[model]\nfolder = "nowhere"\n')
    result = run(chaskid, "validate", bad, check=False)
    assert result.returncode == 1 and "chaski-quantize" in result.stderr

    bad.write_text('[model]\nfolder = "nowhere"\n[limit]\n')
    result = run(chaskid, "validate", bad, check=False)
    assert result.returncode == 1 and "limits" in result.stderr


def test_a_model_that_is_not_there_ends_the_daemon(chaskid, run, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text('[model]\nfolder = "nowhere"\n')
    result = run(chaskid, "--config", config, check=False)
    assert result.returncode == 1
    assert "cannot load the model" in result.stderr and "nowhere" in result.stderr
