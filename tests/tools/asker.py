"""A client that asks many questions, does not give up, and counts the answers.

It is connected to the broker directly and has a session there, so that what the
daemon and the broker lose is told apart from what the network between them does.
"""

import queue
import time
from collections import Counter
from collections.abc import Callable

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from .mqtt_client import user_property
from .tally import Question, Tally

AGAIN = 1.0
"""Seconds after which an impatient client asks again, often before the answer can be there."""
NO_SUBSCRIBER = 0x10
"""The broker took a message and had nobody to give it to."""


class Asker:
    """Asks while the test lets it: by `step`, `go_on` or `settle`.

    At most `window` questions are without an answer at any time. One is asked a
    second time only if the broker had nobody to give it to, or if the test called
    `doubt`: otherwise the broker answers for what it has accepted. `counts` tells
    how often that was: `unheard` and `again`.
    """

    def __init__(self, port: int, questions: list[Question], window: int = 24):
        self.tally = Tally(questions)
        self.counts: Counter[str] = Counter()
        self.status: str | None = None
        """The last that came on the status topic."""
        self._waiting = list(reversed(questions))
        self._replies = "faults/replies"
        self._status = questions[0].topic.rsplit("/", 1)[0] + "/status"
        self._window = window
        self._doubtful: dict[int, float] = {}
        self._published: dict[int, Question] = {}
        # Callbacks come in another thread and do nothing but this.
        self._events: queue.SimpleQueue[tuple] = queue.SimpleQueue()
        self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id="faults-asker", protocol=paho.MQTTv5
        )
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._events.put(("subscribed",))
        self._client.on_publish = lambda _client, _data, mid, reason, _properties: (
            self._events.put(("accepted", mid, reason.value))
        )
        self._client.on_message = lambda _client, _data, message: (
            self._events.put(("message", message))
        )
        self._client.reconnect_delay_set(0.3, 0.3)
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", port, clean_start=False, properties=properties)
        self._client.loop_start()
        self._subscribed = False
        deadline = time.monotonic() + 20
        while not self._subscribed:
            assert time.monotonic() < deadline, "the asker could not subscribe"
            self._take_event(0.1)

    def _on_connect(self, client, _data, flags, _reason, _properties) -> None:
        # A broker that forgot its sessions forgot the subscriptions with them.
        if not flags.session_present:
            for topic in (self._replies, self._status):
                client.subscribe(topic, qos=1)

    def doubt(self) -> None:
        """The broker may have forgotten what it accepted so far.

        What has no answer now is asked again every now and then, as a client would.
        """
        again = time.monotonic() + AGAIN
        for question in self.tally.unanswered():
            self._doubtful.setdefault(question.number, again)

    def step(self, timeout: float = 0.05) -> None:
        """Asks as far as the window allows and takes what came."""
        if self._client.is_connected():
            self._ask_again()
            open_ = len(self.tally.asked) - len(self.tally.answered)
            for _ in range(min(self._window - open_, len(self._waiting))):
                question = self._waiting.pop()
                self.tally.asked.add(question.number)
                self._publish(question)
        self._take_event(timeout)

    def _ask_again(self) -> None:
        now = time.monotonic()
        for question in self.tally.unanswered():
            if self._doubtful.get(question.number, now + 1) <= now:
                # Not if it is still on its way to the broker.
                if question not in self._published.values():
                    self.counts["again"] += 1
                    self._publish(question)
                self._doubtful[question.number] = now + AGAIN

    def go_on(self, seconds: float) -> None:
        """Goes on asking for so long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.step()

    def settle(self, timeout: float = 30) -> None:
        """Asks nothing more until the broker has accepted all that was asked."""
        deadline = time.monotonic() + timeout
        while self._published:
            assert time.monotonic() < deadline, "the broker does not accept the questions"
            self._take_event(0.05)

    def finish(self, patience: float, at_step: Callable[[], None]) -> None:
        """Asks all, until there is an answer to each or none came for `patience` seconds.

        Then waits for more, which would be too much.
        """
        deadline = time.monotonic() + patience
        answered = 0
        while self._waiting or self.tally.unanswered():
            at_step()
            self.step()
            if len(self.tally.answered) > answered:
                answered = len(self.tally.answered)
                deadline = time.monotonic() + patience
            if time.monotonic() > deadline:
                break
        quiet = time.monotonic() + 1.5
        while time.monotonic() < quiet:
            if self._take_event(0.1) == "message":
                quiet = time.monotonic() + 1.5

    def close(self) -> None:
        """Disconnects."""
        self._client.disconnect()
        self._client.loop_stop()

    def _publish(self, question: Question) -> None:
        properties = Properties(PacketTypes.PUBLISH)
        properties.ResponseTopic = self._replies
        properties.CorrelationData = question.correlation
        sent = self._client.publish(
            question.topic, question.payload, qos=1, properties=properties
        )
        # The event of its acceptance is looked at later, in this thread.
        self._published[sent.mid] = question

    def _take_event(self, timeout: float) -> str | None:
        """Waits for an event, takes it and all others that are there."""
        last = None
        try:
            event = self._events.get(timeout=timeout)
            while True:
                last = event[0]
                self._take(*event)
                event = self._events.get_nowait()
        except queue.Empty:
            return last

    def _take(self, kind: str, *what) -> None:
        if kind == "subscribed":
            self._subscribed = True
        elif kind == "accepted":
            mid, reason = what
            question = self._published.pop(mid, None)
            if question is None:
                return
            assert reason < 0x80, f"the broker refuses {question.topic}: {reason:#x}"
            if reason == NO_SUBSCRIBER:
                self.counts["unheard"] += 1
                self._doubtful[question.number] = time.monotonic() + AGAIN
            else:
                self.tally.accepted(question)
        else:
            (message,) = what
            if message.topic == self._status:
                self.status = message.payload.decode()
                return
            correlation = getattr(message.properties, "CorrelationData", None)
            self.tally.reply(correlation, message.payload, user_property(message, "error"))
