"""A board as an emulated machine, of which the test has a root shell and the broker's port."""

from __future__ import annotations

import base64
import io
import os
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tools.mosquitto import free_port

if TYPE_CHECKING:
    from .image import Image

MQTT, SHELL = 1883, 7777
"""Ports of the guest."""


@dataclass(frozen=True)
class Board:
    """What is emulated."""

    arguments: tuple[str, ...]
    drive: str
    """How the disk is attached."""
    root: str
    """And what the guest calls it."""
    network: tuple[str, ...]
    console: str
    device_tree: str | None = None
    """Of those that come with Debian's kernel; by default qemu's own."""
    words: tuple[str, ...] = ()
    """More of the kernel's command line."""


VIRT = Board(
    arguments=("-M", "virt", "-cpu", "cortex-a72", "-smp", "2", "-m", "1024"),
    drive="if=virtio",
    root="/dev/vda",
    network=("-device", "virtio-net-pci,netdev=net,romfile="),
    console="ttyAMA0",
)

RASPI3B = Board(
    # Debian's device tree has the console at the second serial port.
    arguments=("-M", "raspi3b", "-serial", "null"),
    drive="if=sd",
    root="/dev/mmcblk0",
    network=("-device", "usb-net,netdev=net"),
    console="ttyS1,115200",
    device_tree="bcm2837-rpi-3-b.dtb",
)
ZERO_2_W = replace(
    RASPI3B,
    device_tree="bcm2837-rpi-zero-2-w.dtb",
    root="/dev/mmcblk1",
    # The same processor with half of the memory.
    words=("mem=512M",),
)


@dataclass(frozen=True)
class Result:
    """What a command in the guest came to."""

    status: int
    output: str
    """Of both streams."""


class Machine:
    """Runs from `start`, or the beginning of a `with`, to its end."""

    def __init__(
        self,
        board: Board,
        image: Image,
        folder: Path,
        keep: bool = False,
        init: str | None = None,
    ):
        """Whatever is written to the disk is forgotten in the end, but with `keep`."""
        qemu = shutil.which("qemu-system-aarch64")
        if qemu is None:
            raise FileNotFoundError(
                "qemu-system-aarch64 is missing: apt-get install qemu-system-arm"
            )
        self.folder = folder
        self.console_file = folder / "console.log"
        self.mqtt_port, self.shell_port = free_port(), free_port()
        self._process: subprocess.Popen | None = None
        forwards = "".join(
            f",hostfwd=tcp:127.0.0.1:{here}-10.0.2.15:{there}"
            for here, there in [(self.mqtt_port, MQTT), (self.shell_port, SHELL)]
        )
        words = ["root=" + board.root, "rw", "console=" + board.console]
        words += ["panic=-1", "systemd.getty_auto=no", "systemd.show_status=yes"]
        # An emulated processor is slow, and another one on a busy machine.
        words += ["systemd.default_timeout_start_sec=600"]
        words += [*board.words, *([f"init={init}"] if init else [])]
        disk = f"file={image.disk},format=raw,cache=unsafe,{board.drive}"
        self._command = [
            qemu, *board.arguments, "-display", "none", "-monitor", "stdio", "-no-user-config",
            "-accel", "tcg,thread=multi", "-parallel", "none",
            "-serial", f"file:{self.console_file}",
            "-kernel", str(image.kernel), "-initrd", str(image.initramfs),
            "-append", " ".join(words),
            "-drive", disk if keep else disk + ",snapshot=on",
            "-netdev", f"user,id=net,restrict=on{forwards}", *board.network,
        ]  # fmt: skip
        if board.device_tree:
            self._command += ["-dtb", str(image.device_tree(board.device_tree))]

    def start(self) -> Machine:
        """Switches it on."""
        with (self.folder / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # Where it keeps what is written to the disk.
                env={**os.environ, "TMPDIR": str(self.folder)},
            )
        return self

    def stop(self) -> None:
        """Switches it off."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Machine:
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()

    def console(self) -> str:
        """All that came on its serial console."""
        return self.console_file.read_text(errors="replace")

    def tail(self, lines: int = 40) -> str:
        """The end of that and what qemu says, for error messages."""
        console = "\n".join(self.console().splitlines()[-lines:])
        return f"the console's end:\n{console}\nqemu: {(self.folder / 'qemu.log').read_text()}"

    def run(
        self, script: str, timeout: float = 60, check: bool = True, input: bytes = b""
    ) -> Result:
        """Has bash run a script in the guest, as root."""
        result = self._try(script, timeout, input)
        assert result is not None, f"the guest does not answer to {script!r}; {self.tail()}"
        if check:
            where = f"in the guest, {script!r} ended with {result.status}:\n{result.output}"
            assert result.status == 0, where
        return result

    def says(self, script: str, timeout: float = 60) -> str:
        """What a script that must succeed prints."""
        return self.run(script, timeout).output.strip()

    def put(self, path: str, content: bytes | Path, mode: int = 0o644) -> None:
        """Writes a file of the guest."""
        if isinstance(content, Path):
            content = content.read_bytes()
        size = len(content)
        script = f"head -c {size} >'{path}' && chmod {mode:o} '{path}' && stat -c %s '{path}'"
        assert self.run(script, 300, input=content).output.strip() == str(size), path

    def put_folder(self, path: str, source: Path) -> None:
        """Copies a folder."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
            archive.add(source, ".")
        content = packed.getvalue()
        script = f"mkdir '{path}' && head -c {len(content)} | tar -x -C '{path}' --no-same-owner"
        self.run(script, 300, input=content)

    def wait_until(self, script: str, timeout: float = 120, every: float = 0.5) -> Result:
        """Runs a script until it succeeds."""
        return self._wait(
            lambda: self.run(script, check=False),
            lambda result: result.status == 0,
            timeout,
            every,
            script,
        )

    def wait_for_shell(self, timeout: float) -> None:
        """Waits until commands can be run."""
        self._wait(
            lambda: self._try("true", 10), lambda result: result is not None, timeout, 0.5, "boot"
        )

    def wait_for_boot(self, timeout: float = 900) -> None:
        """Waits until all services are started; that one failed is an error."""
        self.wait_for_shell(timeout)
        state = self.run("systemctl is-system-running --wait", timeout, check=False).output
        if state.strip() != "running":
            failed = self.run("systemctl --failed --no-legend --plain", check=False).output
            raise AssertionError(f"the guest is {state.strip()}; failed:\n{failed}\n{self.tail()}")

    def reboot(self, timeout: float = 900) -> None:
        """Has it restart by itself, and waits until it is up again."""
        before = self._boot()
        self.run("systemctl --no-block reboot")
        self._wait_for_boot_after(before, timeout)

    def cut_power(self, timeout: float = 900) -> None:
        """Switches it off and on; what it has written to the disk by then is there."""
        before = self._boot()
        self._process.stdin.write(b"system_reset\n")
        self._process.stdin.flush()
        self._wait_for_boot_after(before, timeout)

    def _boot(self) -> str | None:
        """Which one it is that runs."""
        result = self._try("cat /proc/sys/kernel/random/boot_id", 10)
        return result.output.strip() if result and result.status == 0 else None

    def _wait_for_boot_after(self, before: str, timeout: float) -> None:
        self._wait(self._boot, lambda now: now not in (None, before), timeout, 0.5, "reboot")
        self.wait_for_boot(timeout)

    def wait_for_end(self, timeout: float) -> None:
        """Waits until it has switched itself off."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it still runs after {timeout} s; {self.tail()}") from None

    def _wait(
        self,
        look: Callable[[], object],
        enough: Callable[..., bool],
        timeout: float,
        every: float,
        what: str,
    ):
        deadline = time.monotonic() + timeout
        while not enough(seen := look()):
            ended = self._process.poll()
            assert ended is None, f"qemu ended with {ended}; {self.tail()}"
            assert time.monotonic() < deadline, f"{what}: {seen} for {timeout} s; {self.tail()}"
            time.sleep(every)
        return seen

    def _try(self, script: str, timeout: float, input: bytes = b"") -> Result | None:
        """The result, if the guest gives one."""
        line = base64.b64encode(script.encode()) + b"\n"
        said = b""
        try:
            with socket.create_connection(("127.0.0.1", self.shell_port), timeout) as connection:
                connection.sendall(line + input)
                deadline = time.monotonic() + timeout
                while part := connection.recv(65536):
                    said += part
                    connection.settimeout(max(deadline - time.monotonic(), 0.01))
        except TimeoutError:
            return None
        except OSError:
            # qemu does not listen yet, or the guest does not.
            return None
        output, _, status = said.decode(errors="replace").rstrip("\n").rpartition("\n")
        return Result(int(status), output) if status.isdigit() else None
