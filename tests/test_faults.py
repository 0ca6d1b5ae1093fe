"""Hundreds of requests while connections, the daemon and the broker fail in every way.

Every accepted request is answered, none with two different texts (but for the beginning
of one that had to be begun anew), and the daemon's memory does not grow. Each scenario prints its counts (`pytest -s` shows them).

Faults come in a random order, the same in every run, each after another share of
the answers, so that the machine's speed does not matter. No scenario ends many
connections of one daemon: its patience between two attempts doubles each time.
"""

import contextlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tools.asker import Asker
from tools.daemon import Chaskid
from tools.mosquitto import Mosquitto
from tools.proxy import DOWN, UP, Proxy
from tools.tally import Question

NODE = "faultnode"
# Fewer than the asker asks at a time: the broker holds the rest back, or the daemon does.
LIMITS = """
queue-depth = 8
per-client-depth = 8
rate-per-minute = 0
max-tokens = 6
"""
PROMPTS = ["Name an animal.", "Say something.", "Tell me a word.", "What do you like?"]
MEMORY_GROWTH = 4 * 1024 * 1024
# More than the longest wait of the daemon between two attempts to connect.
PATIENCE = 120


def questions(count: int) -> list[Question]:
    """Of every kind in turn: plain, whole, streamed, streamed with the whole text."""
    return [question(number) for number in range(count)]


def question(number: int) -> Question:
    prompt = PROMPTS[number // 4 % len(PROMPTS)]
    kind = number % 4
    if kind == 0:
        return Question(number, f"chaski/{NODE}/ask", prompt)
    request = {
        "id": f"q{number}",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 6,
        # Computed again with another seed, its text would be another.
        "temperature": 1.2,
        "stream": kind > 1,
        "stream_options": {"include_text": kind == 3},
    }
    chat = f"chaski/{NODE}/chat"
    return Question(number, chat, json.dumps(request), streamed=kind > 1, sampled=True)


@dataclass
class Scene:
    """All who take part."""

    broker: Mosquitto
    proxy: Proxy
    daemon: Chaskid
    asker: Asker
    random: random.Random

    def until(self, happened: Callable[[], bool]) -> None:
        """Goes on until something has happened."""
        for _ in range(600):
            if happened():
                return
            self.asker.go_on(0.1)
        raise AssertionError("a fault did not happen within a minute")

    def until_counted(self, what: str, fault: Callable[[], None]) -> None:
        """Has the proxy do something, and goes on until it has."""
        before = self.proxy.counts[what]
        fault()
        self.until(lambda: self.proxy.counts[what] > before)

    def some_time(self, longest: float) -> None:
        """Goes on for a while."""
        self.asker.go_on(self.random.uniform(0, longest))


# Faults of the network.


def delay(scene: Scene) -> None:
    scene.proxy.delay(0.05)
    scene.asker.go_on(1.5)
    scene.proxy.delay(0)


def cut(scene: Scene) -> None:
    scene.proxy.cut()


def halve_up(scene: Scene) -> None:
    scene.until_counted("cut", lambda: scene.proxy.halve(UP))


def halve_down(scene: Scene) -> None:
    scene.until_counted("cut", lambda: scene.proxy.halve(DOWN))


def cut_in_a_while(scene: Scene) -> None:
    size = scene.random.randrange(1000, 5000)
    scene.until_counted("cut", lambda: scene.proxy.cut_after(UP, size))


def overlap(scene: Scene) -> None:
    scene.proxy.part(scene.random.uniform(0.1, 2))


def swap(scene: Scene) -> None:
    """The broker takes the old attempt for the new one, and ends the new one for it."""

    def swap_and_cut() -> None:
        scene.proxy.swap(0.7)
        scene.proxy.cut()

    scene.until_counted("swapped", swap_and_cut)


def stall(scene: Scene) -> None:
    scene.proxy.stall()
    scene.asker.go_on(1.5)
    scene.proxy.resume()


def stall_up(scene: Scene) -> None:
    scene.proxy.stall(UP)
    scene.asker.go_on(1.5)
    scene.proxy.resume()


def stall_down(scene: Scene) -> None:
    scene.proxy.stall(DOWN)
    scene.asker.go_on(1.5)
    scene.proxy.resume()


def stall_for_long(scene: Scene) -> None:
    """Until the broker gives the daemon up, after one and a half keep-alives."""
    given_up = scene.broker.log().count("exceeded timeout")
    scene.proxy.stall()
    scene.until(lambda: scene.broker.log().count("exceeded timeout") > given_up)
    scene.proxy.resume()


def refuse(scene: Scene) -> None:
    scene.proxy.refuse()
    scene.proxy.cut()
    scene.asker.go_on(1)
    scene.proxy.admit()


# Ends of the daemon.


def kill_daemon(scene: Scene) -> None:
    """Either just when an answer has come, or in the middle of one."""
    if scene.random.random() < 0.5:
        scene.some_time(0.3)
    scene.daemon.kill()
    scene.some_time(0.5)
    scene.daemon.start()


# Ends of the broker.


def kill_broker_that_saved(scene: Scene) -> None:
    """It has all on disk that it acknowledged: nobody need ask again."""
    # Nothing new comes in between its saving and its end, which it could acknowledge.
    scene.asker.settle()
    scene.proxy.stall()
    scene.broker.save()
    scene.broker.kill()
    # What it said after it saved must not arrive.
    scene.proxy.cut()
    scene.proxy.resume()
    scene.some_time(0.3)
    scene.broker.start()


def kill_broker_at_any_moment(scene: Scene) -> None:
    """What it acknowledged last may not be on disk."""
    scene.some_time(0.3)
    scene.broker.kill()
    scene.asker.doubt()
    scene.some_time(0.3)
    scene.broker.start()


def restart_broker(scene: Scene) -> None:
    """In order: it writes all that it keeps."""
    scene.broker.stop()
    scene.some_time(0.3)
    scene.broker.start()


def restart_broker_that_forgets(scene: Scene) -> None:
    scene.broker.stop()
    scene.asker.doubt()
    scene.some_time(0.3)
    scene.broker.start()


@dataclass(frozen=True)
class Scenario:
    """Which faults there are, and how many requests."""

    faults: tuple[Callable[[Scene], None], ...]
    requests: int
    connections: int
    """How often the daemon connects at least, else the faults did not do what they should."""
    persistent: bool = True
    """Whether the broker keeps what it has on disk."""


SCENARIOS = {
    "cuts": Scenario((cut, halve_up, halve_down, cut_in_a_while, overlap, delay), 200, 6),
    "stalls": Scenario(
        (stall, stall_up, stall_down, stall_for_long, refuse, swap, delay), 200, 5
    ),
    "daemon-killed": Scenario((kill_daemon,) * 6, 240, 7),
    "broker-killed": Scenario(
        (kill_broker_that_saved,) * 3 + (restart_broker,) * 2 + (kill_broker_at_any_moment,),
        200,
        7,
    ),
    "broker-forgets": Scenario(
        (kill_broker_at_any_moment,) * 3 + (restart_broker_that_forgets,) * 2,
        200,
        6,
        persistent=False,
    ),
}


class Memory:
    """What one process takes, from when it has answered a few to its end."""

    WARM_UP = 30

    def __init__(self, scene: Scene):
        self.scene = scene
        self.process = None
        self.from_answer = 0
        self.first: int | None = None

    def look(self) -> None:
        """Called often; finds out by itself that the daemon was started again."""
        answered = len(self.scene.asker.tally.answered)
        if self.scene.daemon.process is not self.process:
            self.process = self.scene.daemon.process
            self.from_answer = answered
            self.first = None
        if self.first is None and answered >= self.from_answer + self.WARM_UP:
            self.first = self.scene.daemon.resident_bytes()

    def growth(self) -> int:
        """Bytes, in the last process there was; all of them if it did not answer enough."""
        return self.scene.daemon.resident_bytes() - (self.first or 0)


@pytest.mark.parametrize("name", SCENARIOS)
def test_faults(name, chaskid, smollm2_folder, tmp_path):
    scenario = SCENARIOS[name]
    chance = random.Random(f"faults/{name}")
    faults = list(scenario.faults)
    chance.shuffle(faults)
    # Not before the memory was looked at, and so that the last process answers enough.
    places = sorted(chance.sample(range(Memory.WARM_UP + 10, scenario.requests - 70), len(faults)))

    with contextlib.ExitStack() as ends:
        broker = Mosquitto(tmp_path, persistent=scenario.persistent).start()
        ends.callback(broker.stop)
        proxy = Proxy(broker.port)
        ends.callback(proxy.close)
        daemon = Chaskid(
            *(chaskid, tmp_path, smollm2_folder, proxy.port, NODE),
            limits=LIMITS,
            delivery='answers-file = "answers"',
        ).start()
        ends.callback(daemon.stop)
        daemon.wait_for_log("connected and subscribed")
        asker = Asker(broker.port, questions(scenario.requests))
        ends.callback(asker.close)
        scene = Scene(broker, proxy, daemon, asker, chance)
        memory = Memory(scene)
        happened = []

        def at_step() -> None:
            memory.look()
            if places and len(asker.tally.answered) >= places[0] and proxy.is_connected():
                places.pop(0)
                fault = faults[len(happened)]
                happened.append(fault.__name__)
                fault(scene)

        asker.finish(PATIENCE, at_step)
        counts = asker.tally.counts()
        growth = memory.growth()
    log = daemon.log()
    computed, again = log.count(" request "), log.count("answered again")
    print(
        f"\nfaults/{name}: {counts}; asked again {asker.counts['again']}, of these unheard "
        f"{asker.counts['unheard']}; computed {computed}, sent again {again}; "
        f"memory {growth // 1024} KiB more"
    )
    print(f"faults/{name}: {', '.join(happened)}; the proxy's connections: {dict(proxy.counts)}")

    assert places == [] and proxy.counts["served"] >= scenario.connections
    assert counts.asked == scenario.requests
    # A broker that forgets may have had nobody to give a question to, which was answered all
    # the same because the daemon had it from before.
    assert counts.accepted == counts.asked or not scenario.persistent
    assert counts.unanswered == 0 and counts.different == 0, "\n".join(asker.tally.faulty())
    assert counts.answered == scenario.requests
    assert counts.strangers == 0 and counts.errors == {}
    # Else a text that was made with another seed would not be seen.
    assert all(len(texts) > 10 for texts in asker.tally.sampled_texts().values())
    assert growth < MEMORY_GROWTH
    assert asker.status == "online"


def test_a_backlog_waits_its_turn(chaskid, smollm2_folder, tmp_path):
    """Mosquitto keeps what comes while a node is away, and sends more of it than it may.

    Debian's lets as many messages out with each acknowledgement as it was allowed in all.
    """
    with contextlib.ExitStack() as ends:
        broker = Mosquitto(tmp_path).start()
        ends.callback(broker.stop)
        limits = "queue-depth = 2\nper-client-depth = 2\nrate-per-minute = 0"
        daemon = Chaskid(chaskid, tmp_path, smollm2_folder, broker.port, NODE, limits=limits)
        ends.callback(daemon.stop)
        # So that the broker has a session for it.
        daemon.start().wait_for_log("connected and subscribed")
        daemon.terminate()
        asker = Asker(broker.port, questions(60), window=60)
        ends.callback(asker.close)
        asker.step()
        asker.settle()
        daemon.start()
        asker.finish(PATIENCE, lambda: None)
        counts = asker.tally.counts()
        print(f"\nfaults/backlog: {counts}")
        assert counts.accepted == counts.answered == 60 and counts.errors == {}
        assert counts.repeated == counts.different == counts.strangers == 0
