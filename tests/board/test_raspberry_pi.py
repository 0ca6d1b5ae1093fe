"""The package on what qemu has of a Raspberry Pi: its processor, SD card, USB and device tree."""

import time

import pytest

from board import image
from board.machine import RASPI3B, ZERO_2_W, Machine
from board.node import SERVICE, Node

pytestmark = pytest.mark.timeout(1800)


@pytest.mark.parametrize(
    "board, compatible, title, megabytes",
    [
        (RASPI3B, "raspberrypi,3-model-b", "Raspberry Pi 3", 1024),
        (ZERO_2_W, "raspberrypi,model-zero-2-w", "Raspberry Pi Zero 2 W", 512),
    ],
    ids=["3b", "zero-2-w"],
)
def test_answers(board, compatible, title, megabytes, deb, good, tmp_path):
    with Machine(board, image.ready(), tmp_path) as machine:
        started = time.monotonic()
        machine.wait_for_boot()
        print(f"booted in {time.monotonic() - started:.0f} s")
        told = machine.says("tr '\\0' '\\n' </proc/device-tree/compatible").splitlines()
        assert told[0] == compatible
        assert int(machine.says("sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")) < (
            megabytes * 1024
        )
        node = Node(machine)
        node.install(deb)
        node.add_model(good)
        machine.run(f"systemctl start {SERVICE}", timeout=300)
        node.ask(good.questions[0])
        # It warns of a broker without account, which is no matter here.
        assert title in machine.run("chaski doctor", timeout=180, check=False).output
