#!/usr/bin/env python3
"""What a node costs that is connected and has nothing to do, as a markdown table.

    benches/mqtt_idle.py --model FOLDER [--seconds 120]

Twice for so many seconds: before the model is loaded (`load = "first-request"`), and after
one request, with the model loaded. The keep-alive is 30 s. Processor time is that of all the
node's threads (utime and stime, in steps of 10 ms), as a share of one core.
"""

import argparse
import time

import common
from common import say, table
from mqtt_node import Asker, node, parser

from tools.daemon import Chaskid
from tools.process import cpu_seconds, memory

CPU_TARGET, MEMORY_TARGET = 0.2, 16.0
"""Per cent of a core, and megabytes without the model."""

SETTLE = 2.0
"""Seconds for what goes on after a connection or an answer."""


def arguments() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=120, help="of each of the two")
    return options.parse_args()


def idle(daemon: Chaskid, seconds: float) -> tuple[float, float]:
    """Per cent of a core while nothing happens, and megabytes after it."""
    say(f"waiting for {seconds:.0f} s")
    time.sleep(SETTLE)
    pid = daemon.process.pid
    before, start = cpu_seconds(pid), time.monotonic()
    time.sleep(seconds)
    used, took = cpu_seconds(pid) - before, time.monotonic() - start
    return 100 * used / took, memory(pid)


def measure() -> None:
    given = arguments()
    with node(given.model, given.chaskid, model='load = "first-request"') as daemon:
        without = idle(daemon, given.seconds)
        asker = Asker(daemon, 1)
        asker.ask("What is the capital of Peru?", max_tokens=16)
        asker.close()
        loaded = idle(daemon, given.seconds)

    def row(name: str, cpu: float, megabytes: float, most: float | None) -> list[str]:
        met = cpu < CPU_TARGET and (most is None or megabytes < most)
        return [name, f"{cpu:.3f}", f"{megabytes:.1f}", "yes" if met else "no"]

    headers = ["node", "processor (% of a core)", "memory (MB)", "within the target"]
    rows = [row("before the model", *without, MEMORY_TARGET), row("model loaded", *loaded, None)]
    targets = f"{CPU_TARGET} %, {MEMORY_TARGET:.0f} MB without model"
    print(f"{given.seconds:.0f} s each; targets: {targets}.")
    print(f"\n{table(headers, rows)}")


if __name__ == "__main__":
    common.main(measure)
