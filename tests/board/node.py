"""The daemon in the guest, and a client of it on this side."""

import json
import re
import time
from pathlib import Path

from tools.mqtt_client import Client

from .machine import Machine
from .models import LONG, TOKENS, Model, Question

NAME = "board"
SERVICE = "chaskid.service"
STORE = "/var/lib/chaski/models"
CURRENT = f"{STORE}/current"
CONFIG = f"""
[node]
name = "{NAME}"
[broker]
host = "localhost"
keep-alive = 10
[model]
folder = "{CURRENT}"
[limits]
max-tokens = {LONG}
"""


def topic(name: str) -> str:
    """One of the node's topics."""
    return f"chaski/{NAME}/{name}"


class Node:
    """Wants a guest that has Mosquitto; the daemon may be there or not."""

    def __init__(self, machine: Machine):
        self.machine = machine

    def install(self, deb: Path) -> None:
        """Installs the package, and configures it for the tests."""
        self.machine.put("/root/chaski.deb", deb)
        self.machine.run("dpkg --install /root/chaski.deb && rm /root/chaski.deb", timeout=600)
        self.configure(CONFIG)

    def config_file(self) -> str:
        """The one that the package has."""
        conffiles = self.machine.says("dpkg-query --show --showformat '${Conffiles}' chaski")
        (name,) = re.findall(r"/etc/chaski/\S+\.toml", conffiles)
        return name

    def configure(self, text: str) -> None:
        """Writes another configuration; nobody is told."""
        self.machine.put(self.config_file(), text.encode(), 0o640)

    def add_model(self, model: Model) -> None:
        """Installs a model as a user does."""
        place = f"/root/{model.name}"
        self.machine.put_folder(place, model.folder)
        self.machine.run(f"chaski models install {place} && rm -r {place}", timeout=180)
        assert self.current() == model.name

    def offer(self, folder: Path) -> None:
        """Moves a model to where the update of models looks."""
        self.machine.put_folder(f"{STORE}/.{folder.name}", folder)
        self.machine.run(f"mv {STORE}/.{folder.name} {STORE}/incoming/{folder.name}")
        self.machine.wait_until(f"! ls {STORE}/incoming | grep .", timeout=300)

    def current(self) -> str:
        """The model that the store calls that."""
        return self.machine.says(f"basename $(readlink -f {CURRENT})")

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

    def journal(self, since: str | None = None, unit: str = SERVICE, least: str = "info") -> str:
        """What the service and systemd said of it, of that priority at least."""
        after = f"--after-cursor '{since}'" if since else "--boot"
        script = f"journalctl --sync; journalctl --no-pager -q -u {unit} -p {least} {after}"
        return self.machine.says(script)

    def wait_for_journal(
        self, pattern: str, since: str | None = None, timeout: float = 180
    ) -> str:
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

    def info(self) -> dict:
        """What the node says of itself."""
        return json.loads(self.retained("info"))

    def model(self) -> str:
        """The model that the node says to run."""
        return self.info()["model"]["name"]

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


