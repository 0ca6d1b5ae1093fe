"""chaskid as a process of its own, with a configuration of the test's."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

from .process import resident_kibibytes


class Chaskid:
    """A daemon that a test starts, stops and kills; its log is kept."""

    def __init__(self, program: Path, folder: Path, model_folder: Path, port: int, node: str, /, **sections: str):
        """`sections` adds lines to a section: `limits="queue-depth = 1"`."""
        self.program = program
        self.node = node
        self.config_file = folder / f"{node}.toml"
        self.log_file = folder / f"{node}.log"
        self.process: subprocess.Popen | None = None
        self.environment: dict[str, str] = {}
        """Added to ours."""
        text = {
            "node": f'name = "{node}"',
            "broker": f'host = "127.0.0.1"\nport = {port}\nkeep-alive = 5',
            "model": f'folder = "{model_folder}"\nthreads = 1',
            "limits": "",
            "stream": "",
            # Greedy: the same question has the same answer.
            "generation": "temperature = 0.0\nrepetition-penalty = 1.0",
        }
        if re.search(r"^threads\b", sections.get("model", ""), re.MULTILINE):
            text["model"] = text["model"].removesuffix("\nthreads = 1")
        for name, lines in sections.items():
            text[name] = f"{text.get(name, '')}\n{lines}"
        self.config_file.write_text(
            "".join(f"[{name}]\n{lines}\n\n" for name, lines in text.items()), encoding="utf-8"
        )

    def topic(self, name: str) -> str:
        """One of the node's topics."""
        return f"chaski/{self.node}/{name}"

    def start(self) -> "Chaskid":
        """Starts it; it is online once its status topic says so."""
        assert self.process is None, "this daemon is running already"
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, "--config", self.config_file],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
            )
        return self

    def wait_for_log(self, text: str, timeout: float = 60) -> None:
        """Waits until the log holds a text."""
        deadline = time.monotonic() + timeout
        while text not in self.log():
            assert time.monotonic() < deadline, f"no {text!r} in the log:\n{self.log()}"
            time.sleep(0.02)

    def pause(self) -> None:
        """Lets it do nothing until `resume`."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on."""
        self.process.send_signal(signal.SIGCONT)

    def resident_bytes(self) -> int:
        """The memory that it takes now."""
        return resident_kibibytes(self.process.pid) * 1024

    def terminate(self, timeout: float = 30) -> int:
        """Sends SIGTERM and gives the exit code."""
        return self._end(signal.SIGTERM, timeout)

    def kill(self) -> None:
        """Ends it at once, as a power cut would."""
        self._end(signal.SIGKILL, 30)

    def stop(self) -> None:
        """For the end of a test, whatever state it is in."""
        if self.process is not None:
            self.kill()

    def _end(self, number: int, timeout: float) -> int:
        assert self.process is not None, "this daemon is not running"
        self.process.send_signal(number)
        code = self.process.wait(timeout)
        self.process = None
        return code

    def log(self) -> str:
        """All that it has logged so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""
