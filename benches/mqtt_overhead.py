#!/usr/bin/env python3
"""What MQTT adds to the time to the first token, as a markdown table.

    benches/mqtt_overhead.py --model FOLDER [--requests 200]

A client publishes a streamed request of one token and waits for its first message, again and
again, over the loopback interface through Mosquitto. From that time the engine's own prefill
is taken off, which the last message tells (`timings.prefill_seconds`), and nothing else: what
is left are the broker twice, the node's reading, queue, template, tokenizer, sampling and
writing, and the client, a bare socket. The prompt is always the same and in the KV cache.

Mosquitto as it comes leaves Nagle's algorithm on: with QoS 1 its acknowledgement of a request
goes to the client first, and the first piece waits until the client's kernel has acknowledged
that, which may take 40 ms. `set_tcp_nodelay true` in its configuration turns that off.
"""

import argparse
import statistics

import common
from common import Unmeasurable, table
from mqtt_node import Asker, node, parser, quantile

from tools.daemon import Chaskid

TARGET = 2.0
"""Milliseconds, of the median."""

BROKERS = {"as it comes": "", "set_tcp_nodelay": "set_tcp_nodelay true"}
"""Lines of its configuration."""

WARM = 20
QUESTION = "What is the capital of Peru?"


def arguments() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--requests", type=int, default=200, help="of each QoS")
    return options.parse_args()


def overheads(asker: Asker, count: int) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds of each request: what is added, the prefill, and of what is added the queue."""
    added, prefill, queue = [], [], []
    for number in range(WARM + count):
        took, replies = asker.ask(QUESTION, max_tokens=1)
        if "content" not in replies[0]["choices"][0]["delta"]:
            raise Unmeasurable(f"the first message has no text: {replies[0]}")
        timings = replies[-1]["timings"]
        if number >= WARM:
            added.append((took - timings["prefill_seconds"]) * 1e3)
            prefill.append(timings["prefill_seconds"] * 1e3)
            queue.append(timings["queue_seconds"] * 1e3)
    return added, prefill, queue


def figures(daemon: Chaskid, qos: int, count: int) -> list[str]:
    """Of one QoS, a row of the table."""
    asker = Asker(daemon, qos)
    added, prefill, queue = overheads(asker, count)
    asker.close()
    median = statistics.median(added)
    return [
        f"{median:.2f}", f"{quantile(added, 0.9):.2f}", f"{max(added):.2f}",
        f"{statistics.median(queue):.2f}", f"{statistics.median(prefill):.2f}",
        "yes" if median < TARGET else "no",
    ]  # fmt: skip


def measure() -> None:
    given = arguments()
    busy = common.busy_share()
    rows = []
    for name, lines in BROKERS.items():
        limits = "rate-per-minute = 0"
        with node(given.model, given.chaskid, broker_lines=lines, limits=limits) as daemon:
            for qos in (0, 1):
                rows.append([name, str(qos), *figures(daemon, qos, given.requests)])
    print(f"{given.requests} requests each; {busy:.0%} of the processors were in use by others.")
    common.warn_if_busy(busy)
    headers = [
        "Mosquitto", "QoS", "added, median (ms)", "90 %", "most", "of it queue", "prefill",
        f"under {TARGET:.0f} ms",
    ]  # fmt: skip
    print(f"\n{table(headers, rows)}")


if __name__ == "__main__":
    common.main(measure)
