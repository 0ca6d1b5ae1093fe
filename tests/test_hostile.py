"""Ten thousand messages of strangers who mean it: the node answers on, in the same memory."""

import random
import time
from collections import Counter

from tools.daemon import Chaskid
from tools.hostile_messages import Messages, malformed
from tools.mqtt_client import Client, user_property
from tools.packets import Closed, Connection, publish
from tools.process import memory

SEED = 20261128
ROUNDS = 10
WARM_ROUNDS = 2
"""In these the node sees something of each kind, and its memory comes to what it needs."""

MESSAGES, MALFORMED, HUGE = 950, 50, 2
"""Of each round."""

HUGE_BYTES = 10_000_000
BATCH = 50
"""Messages between two looks at whether all were read."""

MOST_GROWTH = 8.0
"""MB from the end of the warm rounds."""

INBOX = "me/inbox"
BOUNDS = {"max_payload_bytes": 100_000, "max_prompt_bytes": 6000}
LIMITS = f"""
rate-per-minute = 0
queue-depth = 64
per-client-depth = 64
max-tokens = 8
max-payload-bytes = {BOUNDS["max_payload_bytes"]}
max-prompt-bytes = {BOUNDS["max_prompt_bytes"]}
"""

ANSWERS_EXPECTED = {
    "chunk", "done", "cancelled", "invalid_utf8", "invalid_json", "invalid_request", "unsupported",
    "empty_prompt", "payload_too_large", "prompt_too_large", "context_length_exceeded", "not_found",
    "invalid_response_topic", "no_reply_address", "model_unavailable",
}  # fmt: skip
"""What shows that the messages reached all that they are about."""


class Watch:
    """A client that hears all that the node says, counts it, and asks what is not hostile."""

    def __init__(self, node: Chaskid, port: int):
        self.node = node
        self.counts: Counter[str] = Counter()
        self.states: list[bytes] = []
        self._asked = 0
        self.client = Client(port)
        for topic in (INBOX, "watch", *map(node.topic, ("answer", "reply/#", "status"))):
            self.client.subscribe(topic)

    def wait_for(self, correlation: bytes):
        """Counts messages until one has this correlation data on our own topic."""
        while True:
            message = self.client.next(300)
            if message.topic == self.node.topic("status"):
                self.states.append(message.payload)
                continue
            if message.topic == "watch" and message.properties.CorrelationData == correlation:
                return message
            status = user_property(message, "status")
            self.counts[user_property(message, "error") if status == "error" else status] += 1

    def _ask(self, text: str):
        self._asked += 1
        correlation = b"%d" % self._asked
        self.client.publish(self.node.topic("ask"), text, "watch", correlation)
        return self.wait_for(correlation)

    def catch_up(self) -> None:
        """Waits until the node has read all that was sent before, and has room for more."""
        while (error := user_property(self._ask(""), "error")) == "busy":
            time.sleep(0.1)
        assert error == "empty_prompt"

    def ask(self) -> None:
        """A question that must be answered as ever."""
        answer = self._ask("What is the capital of Peru?")
        assert b"Lima" in answer.payload, answer.payload


def send_huge(node: Chaskid, rng: random.Random, count: int) -> None:
    with Connection(node.port) as stranger:
        for name in rng.sample(["ask", "chat", "cancel", "control"], count):
            stranger.send(publish(node.topic(name).encode(), b"1" * HUGE_BYTES))
        stranger.ping()


def send_drawn(node: Chaskid, rng: random.Random, messages: Messages, count: int) -> Counter[str]:
    """Kinds of what was sent; the broker has all of it then."""
    kinds = Counter()
    with Connection(node.port) as stranger:
        for place in range(count):
            message = messages.draw()
            kinds[message.kind] += 1
            packet_id = rng.choice([None, place + 1])
            stranger.send(message.packet(node.topic(message.topic), packet_id))
        stranger.ping()
    return kinds


def send_malformed(node: Chaskid, rng: random.Random, count: int) -> Counter[str]:
    """What the broker did: `cut` the connection, `kept` it, or `waits` for the rest of a packet."""
    outcomes = Counter()
    for _ in range(count):
        kind, data = malformed(rng, node.topic(rng.choice(["ask", "chat"])), INBOX)
        with Connection(node.port) as stranger:
            stranger.socket.settimeout(0.1 if kind in ("half a packet", "random bytes") else 30)
            try:
                stranger.send(data)
                stranger.ping()
                outcomes["kept"] += 1
            except Closed:
                outcomes["cut"] += 1
            except TimeoutError:
                outcomes["waits"] += 1
    return outcomes


def test_ten_thousand_hostile_messages(node, tmp_path):
    node = node(
        # The broker must drop nothing on its way to the node.
        broker="max_queued_messages 0\n",
        # The queue is long, so that what comes is read and not just told `busy`.
        limits=LIMITS,
        model="context-length = 256",
        control=f'reload = true\nmodels-folder = "{tmp_path}"',
    )
    started = time.monotonic()
    rng = random.Random(SEED)
    messages = Messages(SEED, node.topic("")[:-1], INBOX, BOUNDS)
    kinds: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    watch = Watch(node, node.port)
    watch.ask()
    sizes = []
    for _ in range(ROUNDS):
        for _ in range(MESSAGES // BATCH):
            kinds += send_drawn(node, rng, messages, BATCH)
            watch.catch_up()
        outcomes += send_malformed(node, rng, MALFORMED)
        send_huge(node, rng, HUGE)
        watch.catch_up()
        watch.ask()
        sizes.append(memory(node.process.pid))
    kinds += Counter(malformed=outcomes.total(), huge=ROUNDS * HUGE)
    warm, end = sizes[WARM_ROUNDS - 1], sizes[-1]
    print(f"\nsent: {kinds.total()}: {dict(kinds.most_common())}")
    print(f"malformed packets: {dict(outcomes)}")
    print(f"replies: {watch.counts.total()}: {dict(watch.counts.most_common())}")
    print(f"memory: {warm:.1f} MB, then {end:.1f} MB; {time.monotonic() - started:.1f} s")
    watch.client.close()
    assert kinds.total() >= 10_000
    assert min(outcomes["cut"], outcomes["kept"]) > 0
    assert ANSWERS_EXPECTED <= watch.counts.keys()
    assert not watch.counts.keys() & {"internal_error", "rate_limited"}
    assert set(watch.states) == {b"online"}
    assert node.log().count("connected and subscribed") == 1
    assert "panic" not in node.log()
    assert end - warm < MOST_GROWTH
    assert node.terminate() == 0
