"""The daemon in the guest, and a client of it on this side."""

import json
import re
import time

from tools.mqtt_client import Client

from .machine import Machine
from .models import TOKENS, Question

NAME = "board"
SERVICE = "chaskid.service"


def topic(name: str) -> str:
    """One of the node's topics."""
    return f"chaski/{NAME}/{name}"


class Node:
    """Wants a guest that has Mosquitto; the daemon may be there or not."""

    def __init__(self, machine: Machine):
        self.machine = machine

    def property(self, name: str, unit: str = SERVICE) -> str:
        """What systemd says of the service."""
        return self.machine.says(f"systemctl show --property {name} --value {unit}")

    def pid(self) -> int:
        """Of the daemon; 0 if it does not run."""
        return int(self.property("MainPID"))

    def restarts(self) -> int:
        """How often systemd has started it again."""
        return int(self.property("NRestarts"))

    def wait_until_active(self, timeout: float = 180) -> None:
        """Waits until it has said that it is ready."""
        self.machine.wait_until(f"systemctl is-active --quiet {SERVICE}", timeout)

    def wait_for_new_pid(self, before: int, timeout: float = 180) -> int:
        """Waits until another process is ready than that one."""
        deadline = time.monotonic() + timeout
        while True:
            self.wait_until_active(timeout)
            pid = self.pid()
            if pid not in (0, before):
                return pid
            assert time.monotonic() < deadline, f"still process {before}:\n{self.journal()}"
            time.sleep(0.5)

    def mark(self) -> str:
        """A point in the journal, from which `journal` reads on."""
        self.machine.run("journalctl --sync")
        return self.machine.says(
            "journalctl --no-pager --quiet --lines 0 --show-cursor | sed -n 's/^-- cursor: //p'"
        )

    def journal(self, since: str | None = None, unit: str = SERVICE) -> str:
        """What the service and systemd said of it."""
        after = f"--after-cursor '{since}'" if since else "--boot"
        return self.machine.says(f"journalctl --sync; journalctl --no-pager -u {unit} {after}")

    def wait_for_journal(self, pattern: str, since: str, timeout: float = 180) -> str:
        """Waits until it says so."""
        deadline = time.monotonic() + timeout
        while not re.search(pattern, said := self.journal(since)):
            assert time.monotonic() < deadline, f"no {pattern!r} in the journal:\n{said}"
            time.sleep(1)
        return said

    def client(self) -> Client:
        """A client of the broker, by the forwarded port."""
        return Client(self.machine.mqtt_port)

    def retained(self, name: str) -> bytes:
        """What a topic holds."""
        with self.client() as client:
            client.subscribe(topic(name))
            return client.next(30).payload

    def wait_for_status(self, status: str, timeout: float = 120) -> None:
        """Waits until the status topic says so."""
        with self.client() as client:
            client.subscribe(topic("status"))
            client.wait_for(topic("status"), status, timeout)

    def model(self) -> str:
        """The model that the node says to run."""
        return json.loads(self.retained("info"))["model"]["name"]

    def ask(self, question: Question) -> None:
        """Asks, and compares the answer."""
        with Asking(self, question.text) as asking:
            asking.finish(question)


class Asking:
    """A question that was asked, until its answer is there."""

    count = 0

    def __init__(self, node: Node, text: str, tokens: int = TOKENS, stream: bool = False):
        Asking.count += 1
        self.id = f"q{Asking.count}"
        self._client = node.client()
        self._inbox = f"board-test/{self.id}"
        self._client.subscribe(self._inbox)
        request = {
            "id": self.id,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": tokens,
            "temperature": 0,
            "repetition_penalty": 1,
            "stream": stream,
        }
        self.text = ""
        """Of a streamed answer, as far as it has come."""
        self._client.publish(topic("chat"), request, self._inbox)

    def __enter__(self) -> "Asking":
        return self

    def __exit__(self, *_) -> None:
        self._client.close()

    def finish(self, question: Question, timeout: float = 300) -> None:
        """Waits for the answer, which must be the right one."""
        reply = self._client.next_json(timeout)
        assert "error" not in reply, reply
        assert reply["choices"][0]["message"]["content"] == question.answer, question
        assert reply["usage"]["completion_tokens"] == question.tokens
        self.is_quiet()

    def first_part(self, timeout: float = 180) -> str:
        """Waits for the beginning of a streamed answer."""
        assert not self._take(timeout)
        return self.text

    def rest(self, timeout: float = 400) -> int:
        """Waits for the end; gives the number of tokens of what `text` has then."""
        while not (chunk := self._take(timeout)):
            pass
        return chunk["usage"]["completion_tokens"]

    def _take(self, timeout: float) -> dict | None:
        """Takes a piece of a streamed answer; gives it if it is the last."""
        chunk = self._client.next_json(timeout)
        assert "error" not in chunk, chunk
        if chunk["sequence"] == 0:
            # Begun anew, by a node that was away.
            self.text = ""
        choice = chunk["choices"][0]
        self.text += choice["delta"].get("content", "")
        return chunk if choice["finish_reason"] else None

    def is_quiet(self) -> None:
        """Nothing more came."""
        assert self._client.messages.empty(), self._client.next().payload


