"""A node behind Debian's Mosquitto, for the benches of what is beside the computing."""

import argparse
import json
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from common import Unmeasurable, program

from tools import packets
from tools.daemon import Chaskid
from tools.mosquitto import Mosquitto

NODE = "bench"
READY = "connected and subscribed"


def parser(documentation: str) -> argparse.ArgumentParser:
    """With the options that all benches of a node have."""
    parser = argparse.ArgumentParser(
        description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="a model folder")
    parser.add_argument("--chaskid", type=Path, help="ours (else the one built here)")
    return parser


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started meanwhile runs on this core alone, and stays there."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {core})
    except OSError as error:
        raise Unmeasurable(f"there is no core {core} for us ({error}): give --cores") from error
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def node(
    model: Path,
    /,
    chaskid: Path | None = None,
    core: int | None = None,
    keep_alive: int = 30,
    broker_lines: str = "",
    **sections: str,
) -> Iterator[Chaskid]:
    """A daemon with one thread that is connected; `.port` is its broker's.

    The broker runs where we do, has the further lines of configuration, and logs nothing:
    that would be more work than its own.
    """
    if not (model / "chaski.json").is_file():
        raise Unmeasurable(f"{model} is no model folder: make one with chaski-quantize")
    chaskid = program("chaskid", chaskid)
    with tempfile.TemporaryDirectory() as folder:
        try:
            lines = f"log_type none\nmax_queued_messages 0\n{broker_lines}\n"
            broker = Mosquitto(Path(folder), config=lines)
        except FileNotFoundError as error:
            raise Unmeasurable(str(error)) from error
        broker.start()
        daemon = Chaskid(chaskid, Path(folder), model.resolve(), broker.port, NODE, **sections)
        text = daemon.config_file.read_text()
        daemon.config_file.write_text(text.replace("keep-alive = 5", f"keep-alive = {keep_alive}"))
        daemon.port = broker.port
        try:
            with on_core(core) if core is not None else nullcontext():
                daemon.start()
            wait_for(daemon)
            yield daemon
        finally:
            daemon.stop()
            broker.stop()


def wait_for(daemon: Chaskid) -> None:
    while READY not in daemon.log():
        if daemon.process.poll() is not None:
            raise Unmeasurable(f"the node ended:\n{daemon.log()}")
        time.sleep(0.05)


class Asker:
    """A client that sends one request at a time, and costs little."""

    def __init__(self, daemon: Chaskid, qos: int):
        self._qos = qos
        self._topic = daemon.topic("chat").encode()
        self._count = 0
        self._connection = packets.Connection(daemon.port, timeout=600)
        # No request is the same as one of another asker.
        self._inbox = f"bench/{uuid.uuid4()}"
        self._connection.subscribe(self._inbox, qos)

    def ask(self, question: str, **fields) -> tuple[float, list[dict]]:
        """Seconds from the request to its first message, and all of them."""
        self._count += 1
        messages = [{"role": "user", "content": question}]
        request = {"id": f"q{self._count}", "messages": messages, "stream": True, **fields}
        properties = packets.text_property(packets.RESPONSE_TOPIC, self._inbox.encode())
        packet_id = self._count % 65535 + 1 if self._qos else None
        data = packets.publish(self._topic, json.dumps(request).encode(), properties, packet_id)
        start = time.perf_counter()
        self._connection.send(data)
        first = self._connection.next_message()
        took = time.perf_counter() - start
        replies = [json.loads(first.payload)]
        while "timings" not in replies[-1]:
            if "error" in replies[-1]:
                raise Unmeasurable(f"the node answers {replies[-1]['error']}")
            replies.append(json.loads(self._connection.next_message().payload))
        return took, replies

    def close(self) -> None:
        self._connection.close()


def quantile(values: list[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]
