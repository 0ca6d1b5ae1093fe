#!/usr/bin/env python3
"""What a flood of requests costs those who are answered, as a markdown table.

    benches/mqtt_flood.py --model FOLDER [--rate 2000] [--seconds 60] [--cores 0,1]

A long streamed answer is computed, again and again, while the node is at rest and while a few
clients send it so many requests a second with QoS 0 (tests/tools/flood.py), in turns, until
the flood has lasted for the seconds. What is compared is the decode speed that the answers
tell (`timings.decode_tokens_per_second`), of those that lay wholly within a turn.

On two cores the flood must not take the processor from the node other than by what the node
does about it. So the node, with one computing thread, has the first of `--cores` for all it
does, and the clients, Mosquitto and this program have the second.
"""

import argparse
import statistics
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import common
from common import Unmeasurable, say, table
from mqtt_node import Asker, node, on_core, parser

from tools import flood
from tools.daemon import Chaskid
from tools.process import memory

TARGET = 0.95
"""Of the speed at rest."""

QUESTION = "Tell me a very long story about a dog and a cat."
CLIENTS = 4


@dataclass
class Figures:
    """What was found, of all turns of a kind together."""

    speeds: list[float] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    """Megabytes of the node, now and then."""


def arguments() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--rate", type=int, default=2000, help="requests a second")
    options.add_argument("--seconds", type=float, default=60, help="of flood, in all turns")
    options.add_argument("--turns", type=int, default=6, help="so many at rest and flooded")
    options.add_argument("--tokens", type=int, default=256, help="of each answer")
    options.add_argument("--cores", default="0,1", help="the node's and the others'")
    given = options.parse_args()
    given.cores = [int(word) for word in given.cores.split(",")]
    if len(set(given.cores)) != 2:
        options.error("--cores: give two numbers")
    return given


def watch(daemon: Chaskid, sizes: list[float], done: threading.Event) -> None:
    """Looks at the node's memory until told to end."""
    while not done.wait(0.2):
        sizes.append(memory(daemon.process.pid))


def turn(daemon: Chaskid, asker: Asker, tokens: int, seconds: float, figures: Figures) -> None:
    """Asks until the time is over."""
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(daemon, figures.sizes, done))
    watcher.start()
    try:
        end = time.monotonic() + seconds
        while True:
            _, replies = asker.ask(QUESTION, max_tokens=tokens, priority="high")
            if time.monotonic() > end:
                return
            timings = replies[-1]["timings"]
            if timings["decode_tokens"] < tokens:
                raise Unmeasurable(f"an answer of {timings['decode_tokens']} tokens: too short")
            figures.speeds.append(timings["decode_tokens_per_second"])
    finally:
        done.set()
        watcher.join()


def flooded_turn(
    daemon: Chaskid, asker: Asker, given: argparse.Namespace, seconds: float, figures: Figures
) -> dict:
    """The same under a flood, and what that counted."""
    process = flood.start(daemon.port, daemon.node, given.rate, seconds, CLIENTS)
    try:
        turn(daemon, asker, given.tokens, seconds, figures)
        return flood.counts_of(process)
    finally:
        if process.poll() is None:
            process.kill()


def measure() -> None:
    given = arguments()
    busy = common.busy_share()
    rest, flooded, counts = Figures(), Figures(), Counter()
    seconds = given.seconds / given.turns
    with on_core(given.cores[1]), node(given.model, given.chaskid, core=given.cores[0]) as daemon:
        # QoS 1: where the queue is full, it waits.
        asker = Asker(daemon, 1)
        # What is there once only: the KV cache and the buffers.
        asker.ask(QUESTION, max_tokens=given.tokens)
        for number in range(given.turns):
            say(f"turn {number + 1} of {given.turns}")
            turn(daemon, asker, given.tokens, seconds, rest)
            counts += Counter(flooded_turn(daemon, asker, given, seconds, flooded))
        asker.close()
    if min(len(rest.speeds), len(flooded.speeds)) < given.turns:
        raise Unmeasurable(f"an answer takes more than {seconds:.0f} s: give fewer --tokens")
    report(given, busy, rest, flooded, counts)


def report(
    given: argparse.Namespace, busy: float, rest: Figures, flooded: Figures, counts: Counter
) -> None:
    ratio = statistics.median(flooded.speeds) / statistics.median(rest.speeds)
    print(
        f"{given.rate} requests a second of {CLIENTS} clients for {counts['seconds']:.0f} s; "
        f"{busy:.0%} of the processors were in use by others."
    )
    common.warn_if_busy(busy)

    def row(name: str, figures: Figures) -> list[str]:
        speeds = figures.speeds
        return [
            name, f"{statistics.median(speeds):.1f}", f"{min(speeds):.1f}", str(len(speeds)),
            f"{figures.sizes[0]:.1f}", f"{max(figures.sizes):.1f}",
        ]  # fmt: skip

    headers = ["node", "tok/s, median", "least", "answers", "memory at first (MB)", "most"]
    print(f"\n{table(headers, [row('at rest', rest), row('flooded', flooded)])}")
    met = "met" if ratio >= TARGET else "not met"
    print(f"\nFlooded / at rest: {ratio:.3f} (target: at least {TARGET}: {met}).\n")
    names = ["sent", "busy", "rate_limited", "answered"]
    rates = [f"{counts['sent'] / counts['seconds']:.0f}", *(str(counts[name]) for name in names)]
    print(table(["sent a second", *names], [rates]))


if __name__ == "__main__":
    common.main(measure)
