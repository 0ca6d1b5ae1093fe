"""Debian's mosquitto on a loopback port, with a configuration of its own."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Mosquitto:
    """A broker that a test starts, stops, kills and starts again on the same port."""

    host = "127.0.0.1"

    def __init__(
        self, folder: Path, port: int | None = None, config: str = "", persistent: bool = False
    ):
        """With `persistent` it keeps sessions and messages in a file, across restarts."""
        program = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if program is None:
            raise FileNotFoundError("mosquitto is not installed: apt-get install mosquitto")
        self.program = program
        self.folder = folder
        self.port = port if port is not None else free_port()
        self.config_file = folder / "mosquitto.conf"
        self.log_file = folder / "mosquitto.log"
        self.process: subprocess.Popen | None = None
        self.database = folder / "mosquitto.db"
        lines = [f"listener {self.port} {self.host}", "log_type all"]
        if persistent:
            # After changes of what it keeps, soon; `save` is for those who must be sure.
            lines += ["persistence true", f"persistence_location {folder}/"]
            lines += ["autosave_on_changes true", "autosave_interval 1"]
        else:
            lines.append("persistence false")
        if os.geteuid() == 0:
            # Otherwise it changes to the user mosquitto, who cannot read the test's folder.
            lines.append("user root")
        if "allow_anonymous" not in config:
            lines.append("allow_anonymous true")
        self.config_file.write_text("\n".join(lines) + "\n" + config)

    def start(self) -> "Mosquitto":
        """Starts the broker and waits until it accepts connections."""
        assert self.process is None, "this broker is running already"
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, "-c", str(self.config_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection((self.host, self.port), timeout=1).close()
                return self
            except OSError:
                ended = self.process.poll()
                if ended is not None or time.monotonic() > deadline:
                    self.kill()
                    raise AssertionError(
                        f"mosquitto did not start (exit code {ended}):\n{self.log()}"
                    ) from None
                time.sleep(0.02)

    def stop(self) -> None:
        """Ends the broker in order: clients are told."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def kill(self) -> None:
        """Ends the broker at once, as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self) -> None:
        """Ends the broker in order and starts it again on the same port."""
        self.stop()
        self.start()

    def save(self) -> None:
        """Has everything that it acknowledged so far written to its file.

        It acknowledges first and writes then, so that one killed in between forgets.
        """
        before = self._saved()
        self.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 20
        while self._saved() == before:
            assert time.monotonic() < deadline, f"mosquitto does not save:\n{self.log()[-2000:]}"
            time.sleep(0.005)

    def _saved(self) -> tuple[int, int] | None:
        """Which version of its file is there; each is a new file."""
        try:
            file = self.database.stat()
        except FileNotFoundError:
            return None
        return file.st_ino, file.st_mtime_ns

    def log(self) -> str:
        """All that the broker has logged so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""
