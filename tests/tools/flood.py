"""Clients that ask far too much, as a process of its own that costs little.

    python tests/tools/flood.py --port 1883 --node board --rate 2000 --seconds 60

Requests have QoS 0 and an id each, so that none is the same as another. It prints a line when
it begins. When the time is up it waits until nothing has come for a while, and prints what it
counted as JSON: requests sent, and replies by what they are.
"""

import argparse
import json
import select
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools import packets

TICK = 0.01
"""Seconds between two handfuls of requests: a sleep for each would be more work than sending."""

QUIET = 3.0
"""Seconds without any reply, after which there will be none."""

REPLIES = {
    "busy": packets.user_property(b"error", b"busy"),
    "rate_limited": packets.user_property(b"error", b"rate_limited"),
    "errors": packets.user_property(b"status", b"error"),
    "answered": packets.user_property(b"status", b"done"),
}
"""What is looked for in the bytes that come in, which are not taken apart."""

_OVERLAP = max(map(len, REPLIES.values())) - 1


class Flooder:
    """One client, known to the node by its response topic."""

    def __init__(self, port: int, node: str, number: int):
        self.connection = packets.Connection(port)
        inbox = f"flood/{number}"
        self.connection.subscribe(inbox, 0)
        self.counts: Counter[str] = Counter()
        self._tail = b""
        question = b'[{"role": "user", "content": "Hi."}]'
        request = b'{"id": "%010d", "max_tokens": 1, "messages": ' + question + b"}"
        properties = packets.text_property(packets.RESPONSE_TOPIC, inbox.encode())
        # Only the id differs, which has the same length always.
        whole = packets.publish(f"chaski/{node}/chat".encode(), request % 0, properties)
        self._before, self._after = whole.split(b"%010d" % 0)

    def send(self, first: int, count: int) -> None:
        """So many requests, whose ids count from `first`."""
        ids = range(first, first + count)
        self.connection.send(b"".join(b"%b%010d%b" % (self._before, i, self._after) for i in ids))

    def read(self) -> None:
        """Counts what has come."""
        data = self.connection.socket.recv(1 << 20)
        if not data:
            raise packets.Closed
        seen = self._tail + data
        for name, words in REPLIES.items():
            # What was whole in the tail was counted before.
            self.counts[name] += seen.count(words) - self._tail.count(words)
        self._tail = seen[-_OVERLAP:]


def flood(port: int, node: str, rate: int, seconds: float, clients: int) -> dict:
    flooders = [Flooder(port, node, number) for number in range(clients)]
    by_socket = {flooder.connection.socket: flooder for flooder in flooders}
    print("flooding", flush=True)
    sent, turn = 0, 0
    start = now = last = time.monotonic()
    while now - start < seconds or now - last < QUIET:
        if now - start < seconds:
            due = int((now - start + TICK) * rate) - sent
            flooders[turn % clients].send(sent, due)
            sent, turn, last = sent + due, turn + 1, now
            took = now - start
        readable, _, _ = select.select(by_socket, [], [], 0)
        for each in readable:
            by_socket[each].read()
            last = now
        time.sleep(TICK)
        now = time.monotonic()
    counts = sum((flooder.counts for flooder in flooders), Counter())
    return {"sent": sent, "seconds": took, **{name: counts[name] for name in REPLIES}}


def start(port: int, node: str, rate: int, seconds: float, clients: int) -> subprocess.Popen:
    """Such a process, which is flooding already."""
    options = {"port": port, "node": node, "rate": rate, "seconds": seconds, "clients": clients}
    command = [sys.executable, __file__, *(f"--{name}={each}" for name, each in options.items())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "flooding\n", "the flood does not begin"
    return process


def counts_of(process: subprocess.Popen) -> dict:
    """What it counted, once it has ended."""
    output, _ = process.communicate()
    assert process.returncode == 0, f"the flood ended with {process.returncode}"
    return json.loads(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--rate", type=int, default=2000, help="requests a second, of all clients")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=4)
    given = parser.parse_args()
    print(json.dumps(flood(given.port, given.node, given.rate, given.seconds, given.clients)))


if __name__ == "__main__":
    main()
