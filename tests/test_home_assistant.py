"""How Home Assistant comes to know of a node, and what its templates make of our messages."""

import json
import queue
import re

import jinja2
import pytest

from tools.mqtt_client import Client
from tools.programs import CHECKOUT

PAGE = CHECKOUT / "docs" / "home-assistant.md"
TOPIC = "homeassistant/device/chaski_board/config"
BIRTH = "homeassistant/status"
QUESTION = "What is the capital of Peru?"
ALL_COMMANDS = "drain = true\nreload = true"

# What its documentation asks of an entity of each kind.
REQUIRED = {
    "text": {"command_topic", "min", "max"},
    "notify": {"command_topic"},
    "event": {"state_topic", "event_types"},
    "sensor": {"state_topic", "value_template"},
    "binary_sensor": {"state_topic", "value_template", "device_class"},
    "button": {"command_topic", "payload_press"},
}


class Panel:
    """What Home Assistant would show: it has the state of each entity by its template."""

    def __init__(self, client: Client):
        self.client = client
        client.subscribe(TOPIC)
        self.device = client.next_json()
        self.entities = {
            key: entity for key, entity in self.device["components"].items() if len(entity) > 1
        }
        self.states = {}
        self.attributes = {}
        for topic in {e["state_topic"] for e in self.entities.values() if "state_topic" in e}:
            client.subscribe(topic)

    def take(self, timeout: float = 60) -> str:
        """Takes the next message, and gives its topic."""
        message = self.client.next(timeout)
        for key, entity in self.entities.items():
            text = message.payload.decode()
            if entity.get("state_topic") == message.topic:
                self.states[key] = render(entity.get("value_template", "{{ value }}"), text)
            if entity.get("json_attributes_topic") == message.topic:
                attributes = json.loads(render(entity["json_attributes_template"], text))
                self.attributes[key] = attributes
        return message.topic

    def take_until(self, key: str, state: str) -> None:
        """Takes messages until an entity has this state."""
        while self.states.get(key) != state:
            self.take()

    def do(self, key: str, text: str | None = None) -> None:
        """Presses a button, sets a text."""
        entity = self.entities[key]
        self.client.publish(entity["command_topic"], text or entity["payload_press"])


def render(template: str, text: str) -> str:
    # Home Assistant logs a warning each time that a template uses what is not there.
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    try:
        value_json = json.loads(text)
    except ValueError:
        value_json = None
    return environment.from_string(template).render(value=text, value_json=value_json)


def test_a_device_is_described(node):
    node = node(control=ALL_COMMANDS)
    with Client(node.port) as client:
        panel = Panel(client)
        device = panel.device
        assert device["device"]["name"] == "Chaski board" and device["origin"]["name"] == "Chaski"
        ids = [entity["unique_id"] for entity in panel.entities.values()]
        names = [entity["default_entity_id"] for entity in panel.entities.values()]
        assert len(set(ids)) == len(set(names)) == len(ids) == len(device["components"])
        for key, entity in panel.entities.items():
            missing = REQUIRED[entity["platform"]] - entity.keys()
            assert not missing, (key, missing)
            assert entity["default_entity_id"] == f"{entity['platform']}.chaski_board_{key}"
        assert {entity["platform"] for entity in panel.entities.values()} == REQUIRED.keys()
        (availability,) = device["availability"]
        for status, wanted in [("online", "online"), ("draining", "online"), ("offline", "offline")]:
            assert render(availability["value_template"], status) == wanted


def test_the_page_names_every_entity(node):
    page = PAGE.read_text(encoding="utf-8")
    table = "".join(line for line in page.splitlines(keepends=True) if line.startswith("|"))
    named = re.findall(r"`(\w+)\.chaski_board_(\w+)`", table)
    keys = {key for _platform, key in named} | set(re.findall(r"`…_(\w+)`", table))
    with Client(node(control=ALL_COMMANDS).port) as client:
        entities = Panel(client).entities
    assert keys == entities.keys()
    for platform, key in named:
        assert entities[key]["platform"] == platform


def test_the_section_of_the_page_is_valid(chaskid, run, smollm2_folder, tmp_path):
    (section,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / "chaskid.toml"
    file.write_text(f'{section}\n[model]\nfolder = "{smollm2_folder}"\n')
    run(chaskid, "validate", file)


def test_states_are_what_the_messages_say(node):
    node = node(control=ALL_COMMANDS, metrics="interval-seconds = 1")
    with Client(node.port) as client:
        panel = Panel(client)
        panel.take_until("answered_requests", "0")
        panel.take_until("status", "online")
        # Before the first answer there is no speed, and no share of anything.
        assert panel.states["decode_speed"] == panel.states["prompt_from_cache"] == ""
        assert float(panel.states["memory"]) > 10e6
        # A machine may not say, which is not the same as "no".
        assert panel.states["throttled"] in ("ON", "OFF", "None")
        assert panel.states["queue_full"] == "OFF"

        panel.do("ask", QUESTION)
        panel.take_until("answered_requests", "1")
        assert "Lima" in panel.states["last_answer"]
        assert panel.attributes["last_answer"]["text"].startswith(panel.states["last_answer"])
        assert json.loads(panel.states["request"])["event_type"] == "answered"
        assert float(panel.states["decode_speed"]) > 0
        panel.do("question", QUESTION)
        panel.take_until("answered_requests", "2")
        assert 0 < float(panel.states["prompt_from_cache"]) < 100

        panel.do("drain")
        panel.take_until("status", "draining")
        panel.do("resume")
        panel.take_until("status", "online")
        panel.do("reload")
        node.wait_for_log("the configuration was read again")


def test_it_is_told_again_when_home_assistant_starts(node):
    node = node()
    with Client(node.port) as client:
        client.subscribe(TOPIC)
        client.subscribe(node.topic("metrics"))
        first = client.next()
        assert first.topic == TOPIC and first.retain
        client.publish(BIRTH, "offline")
        client.publish(BIRTH, "online")
        again = {message.topic: message for message in (client.next(), client.next())}
        assert again[TOPIC].payload == first.payload
        assert again.keys() == {TOPIC, node.topic("metrics")}
    # A broker that has forgotten everything is told again as well.
    node.broker.restart()
    with Client(node.port) as client:
        client.subscribe(TOPIC)
        assert client.next().payload == first.payload


def test_without_commands_and_figures_there_are_no_such_entities(node):
    node = node(metrics="interval-seconds = 0")
    with Client(node.port) as client:
        panel = Panel(client)
        assert panel.entities.keys() == {"ask", "question", "last_answer", "request", "status"}
        # What is taken away is named, with its platform alone.
        gone = panel.device["components"]["temperature"]
        assert gone == {"platform": "sensor"}


def test_turned_off_the_device_is_taken_back(node):
    node = node()
    with Client(node.port) as client:
        client.subscribe(TOPIC)
        assert client.next_json()
        node.terminate()
        text = node.config_file.read_text()
        node.config_file.write_text(text + "[home-assistant]\ndiscovery = false\n")
        node.start()
        assert client.next().payload == b""
        client.publish(BIRTH, "online")
        client.subscribe("me")
        client.publish(node.topic("ask"), QUESTION, "me")
        assert client.next().topic == "me"
    with Client(node.port) as client:
        client.subscribe(TOPIC)
        with pytest.raises(queue.Empty):
            client.messages.get(timeout=1)


def test_a_broker_that_does_not_allow_it_does_no_harm(node, tmp_path):
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite chaski/#\ntopic readwrite me\n")
    rules.chmod(0o600)
    node = node(broker=f"acl_file {rules}\n")
    with Client(node.port) as client:
        client.subscribe("me")
        client.publish(node.topic("ask"), QUESTION, "me")
        assert b"Lima" in client.next().payload
