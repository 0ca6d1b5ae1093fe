"""A client made of paho-mqtt that collects what comes in."""

import json
import queue
import threading
import time

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


class Client:
    """Connected from its making to `close`; messages wait in the order they came."""

    def __init__(self, port: int, protocol=paho.MQTTv5, host: str = "127.0.0.1"):
        self.messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self._connected = threading.Event()
        self._subscribed = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=protocol)
        self._client.on_connect = lambda *_: self._connected.set()
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _client, _data, message: self.messages.put(message)
        self._client.connect(host, port)
        self._client.loop_start()
        assert self._connected.wait(10), "no connection to the broker"

    def subscribe(self, topic: str) -> None:
        """Subscribes and waits for the broker's word."""
        self._subscribed.clear()
        self._client.subscribe(topic, qos=1)
        assert self._subscribed.wait(10), f"no subscription to {topic}"

    def publish(
        self,
        topic: str,
        payload: str | bytes | dict,
        response_topic: str | None = None,
        correlation: bytes | None = None,
        retain: bool = False,
        qos: int = 1,
        **others,
    ) -> None:
        """Publishes and waits for the broker's word; `others` are properties by paho's names."""
        properties = None
        if response_topic is not None or correlation is not None or others:
            properties = Properties(PacketTypes.PUBLISH)
            for name, value in others.items():
                setattr(properties, name, value)
            if response_topic is not None:
                properties.ResponseTopic = response_topic
            if correlation is not None:
                properties.CorrelationData = correlation
        if isinstance(payload, dict):
            payload = json.dumps(payload)
        sent = self._client.publish(topic, payload, qos=qos, retain=retain, properties=properties)
        sent.wait_for_publish(10)
        assert sent.is_published(), f"the broker did not take a message on {topic}"

    def next(self, timeout: float = 120) -> paho.MQTTMessage:
        """The next message."""
        try:
            return self.messages.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"no message within {timeout} s") from None

    def next_json(self, timeout: float = 120) -> dict:
        """The next message, as JSON."""
        return json.loads(self.next(timeout).payload)

    def wait_for(self, topic: str, payload: str, timeout: float = 120) -> paho.MQTTMessage:
        """Takes messages until one has this topic and text."""
        deadline = time.monotonic() + timeout
        while True:
            message = self.next(max(deadline - time.monotonic(), 0.01))
            if message.topic == topic and message.payload == payload.encode():
                return message

    def close(self) -> None:
        """Disconnects."""
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def user_property(message: paho.MQTTMessage, name: str) -> str | None:
    """A user property of a message."""
    pairs = getattr(message.properties, "UserProperty", [])
    return dict(pairs).get(name)
