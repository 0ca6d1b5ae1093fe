"""What a node tells of itself: info, schema, metrics, events."""

import json
import re
import shutil

import jsonschema
import pytest

from tools.mqtt_client import Client

QUESTION = {"role": "user", "content": "What is the capital of Peru?"}
PI_THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"


@pytest.fixture
def raspberry_pi(tmp_path):
    """A folder that says what the machine's `/proc` and `/sys` would."""
    root = tmp_path / "root"
    zone = root / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("cpu-thermal\n")
    (zone / "temp").write_text("51540\n")
    (root / PI_THROTTLED).parent.mkdir(parents=True)
    (root / PI_THROTTLED).write_text("0\n")
    (root / "proc").mkdir()
    shutil.copy("/proc/meminfo", root / "proc/meminfo")
    return root


def retained(port: int, topic: str) -> dict:
    with Client(port) as client:
        client.subscribe(topic)
        message = client.next()
        assert message.retain
        return json.loads(message.payload)


def test_info_names_what_the_node_can_do(node):
    node = node(control="drain = true", node='group = "house"', metrics="interval-seconds = 0")
    info = retained(node.port, node.topic("info"))
    capabilities = set(info["capabilities"])
    assert {"ask", "chat", "stream", "cancel", "group", "control.drain", "session"} <= capabilities
    assert not {"control.reload", "control.model"} & capabilities
    assert info["topics"]["control"] == node.topic("control")
    assert "metrics" not in info["topics"]
    for name, topic in info["topics"].items():
        assert topic == node.topic(name)
    assert "password" not in json.dumps(info)


# What the fields of a request may be, and what not.
FIELDS = [
    ("id", ["q", "x" * 64], ["", "x" * 65, 1]),
    ("user", ["me", None], [3]),
    ("priority", ["low", "high", None], ["urgent", 1]),
    ("max_tokens", [1, 2, 10**6], [0, -1, "1", 1.5]),
    ("max_completion_tokens", [1], [0]),
    ("temperature", [0, 0.5, 2, None], [-0.1, 2.1, "hot"]),
    ("top_p", [0, 1], [-1, 1.1]),
    ("top_k", [0, 40], [-1, 0.5]),
    ("min_p", [0, 0.99], [1, -0.1]),
    ("repetition_penalty", [0.01, 10], [0, 10.1]),
    ("seed", [-5, 42], ["seed", 0.5]),
    ("stop", ["\n", ["a", "b"], []], ["", [""], "x" * 257, ["x"] * 17, 3]),
    ("stream", [False], ["yes", 1]),
    ("stream_options", [{}, {"include_text": True}], [{"include_text": "yes"}]),
    ("tools", [[]], ["none", {}]),
    ("tool_choice", ["auto", "none"], ["required", {"type": "function"}]),
    ("n", [1], [2, 0]),
    ("logprobs", [False], [True]),
    ("logit_bias", [{}], [{"5": 1}]),
    ("presence_penalty", [0, 0.0], [0.5]),
    ("frequency_penalty", [0], [1]),
    ("response_format", [{"type": "text"}], [{"type": "json_object"}, "text"]),
    ("functions", [None], [[{"name": "f"}]]),
    ("messages", [[QUESTION]], [[], "hi", [{"content": "hi"}], [{"role": "robot", "content": "hi"}],
                                [{"role": "user", "content": 3}],
                                [{"role": "user", "content": [{"type": "image_url"}]}]]),
    ("model", ["gpt", 3], []),
]  # fmt: skip


def test_the_schema_says_what_the_node_takes(node):
    node = node(limits="max-tokens = 1\nrate-per-minute = 0\nper-client-depth = 8")
    schema = retained(node.port, node.topic("schema"))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    named = {name for name, _, _ in FIELDS}
    assert named - {"model"} == set(schema["properties"]), "each field is tried"
    refusals = {"invalid_request", "unsupported"}
    with Client(node.port) as client:
        client.subscribe("me")
        for name, good, bad in FIELDS:
            for value, fits in [(v, True) for v in good] + [(v, False) for v in bad]:
                request = {"messages": [QUESTION], "max_tokens": 1, name: value}
                assert validator.is_valid(request) == fits, (name, value)
                client.publish(node.topic("chat"), request, "me")
                reply = client.next_json()
                assert (reply.get("error", {}).get("code") not in refusals) == fits, (value, reply)


def test_metrics(node, raspberry_pi):
    node = node(metrics=f'interval-seconds = 1\nsystem-root = "{raspberry_pi}"')
    with Client(node.port) as client, Client(node.port) as metrics:
        client.subscribe("me")
        metrics.subscribe(node.topic("metrics"))
        first = metrics.next_json()
        assert first["node"] == "board" and "speed" not in first
        assert first["queue"] == {"waiting": 0, "depth": 8, "running": False}
        assert first["temperature_celsius"] == 51.54
        assert not any(first["throttling"].values())
        with open("/proc/meminfo") as meminfo:
            total = int(re.search(r"MemTotal:\s+(\d+) kB", meminfo.read())[1]) * 1024
        assert 10e6 < first["memory"]["resident_bytes"] < total
        assert 10e6 < first["memory"]["available_bytes"] < total

        for name in ("q1", "q2"):
            client.publish(node.topic("chat"), {"id": name, "messages": [QUESTION]}, "me")
        usages = [client.next_json()["usage"] for _ in range(2)]
        client.publish(node.topic("chat"), {"id": "q3", "messages": []}, "me")
        assert client.next_json()["error"]["code"] == "invalid_request"
        (raspberry_pi / PI_THROTTLED).write_text("50005\n")
        while (last := metrics.next_json())["requests"]["refused"] == 0:
            pass
        last = metrics.next_json()
        assert last["requests"]["answered"] == 2 and last["requests"]["refused"] == 1
        assert last["tokens"]["prompt"] == sum(usage["prompt_tokens"] for usage in usages)
        assert last["tokens"]["completion"] == sum(usage["completion_tokens"] for usage in usages)
        # The second question began as the first.
        assert last["tokens"]["prefix_cache_hits"] == 1 and last["tokens"]["cached"] > 5
        assert last["speed"]["decode_tokens_per_second"] > 0
        assert last["uptime_seconds"] >= first["uptime_seconds"]
        assert last["throttling"] == {
            "throttled": True,
            "throttled_since_boot": True,
            "under_voltage": True,
            "under_voltage_since_boot": True,
        }
    assert "the machine is throttled" in node.log() and "too little voltage" in node.log()


def test_metrics_are_off_without_an_interval(node):
    node = node(metrics="interval-seconds = 0", control="reload = true")
    with Client(node.port) as client:
        client.subscribe("me")
        client.subscribe(node.topic("metrics"))
        client.publish(node.topic("ask"), "What is the capital of Peru?", "me")
        assert client.next().topic == "me"
        assert client.messages.empty()
        text = node.config_file.read_text()
        node.config_file.write_text(text.replace("interval-seconds = 0", "interval-seconds = 1"))
        client.publish(node.topic("control"), "reload", "me")
        assert client.next_json()["restart_needed"] == []
        assert client.next().topic == node.topic("metrics")


def test_events_tell_how_requests_end(node):
    node = node(limits="queue-depth = 1\nper-client-depth = 1")
    with Client(node.port) as client, Client(node.port) as listener:
        client.subscribe("me")
        listener.subscribe(node.topic("event"))
        chat = lambda name, **fields: client.publish(
            node.topic("chat"), {"id": name, "messages": [QUESTION], **fields}, "me"
        )
        chat("q1")
        usage = client.next_json()["usage"]
        answered = listener.next_json()
        assert answered.pop("seconds") > 0
        assert answered == {
            "event_type": "answered", "node": "board", "id": "q1", "finish_reason": "stop",
            "prompt_tokens": usage["prompt_tokens"], "completion_tokens": usage["completion_tokens"],
        }  # fmt: skip
        chat("q2", temperature=7)
        assert listener.next_json() == {
            "event_type": "failed", "node": "board", "id": "q2", "error": "invalid_request"
        }  # fmt: skip
        # One that runs, one that waits, and one for which there is no room: no event.
        endless = {"messages": [{"role": "user", "content": "Count from 1 to 1000."}]}
        client.publish(node.topic("chat"), {"id": "q3", "stream": True, **endless}, "me")
        while client.next_json()["id"] != "q3":
            pass
        client.publish(node.topic("chat"), {"id": "q4", **endless}, "me")
        client.publish(node.topic("chat"), {"id": "q5", **endless}, "me", qos=0)
        for name in ("q4", "q3"):
            client.publish(node.topic("cancel"), name)
        events = [listener.next_json() for _ in range(2)]
        assert [(e["event_type"], e["id"]) for e in events] == [
            ("cancelled", "q4"),
            ("cancelled", "q3"),
        ]
        assert listener.messages.empty()


def test_a_model_that_is_loaded_is_an_event(node):
    node = node(model='load = "first-request"')
    with Client(node.port) as client:
        client.subscribe(node.topic("event"))
        client.publish(node.topic("ask"), "What is the capital of Peru?")
        loaded = client.next_json()
        assert loaded["event_type"] == "model_loaded" and loaded["load_seconds"] > 0
        assert client.next_json()["event_type"] == "answered"
