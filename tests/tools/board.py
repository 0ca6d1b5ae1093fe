"""A folder that says what a board's `/proc` and `/sys` would."""

import re
import shutil
from pathlib import Path

THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"


class FakeBoard:
    """A Raspberry Pi that a test heats and cools, with memory that it takes away and gives back."""

    def __init__(self, root: Path):
        self.root = root
        self.write("sys/class/thermal/thermal_zone0/type", "cpu-thermal")
        self.write("sys/class/thermal/thermal_zone0/trip_point_0_type", "critical")
        self.write("sys/class/thermal/thermal_zone0/trip_point_0_temp", "110000")
        self.heat(50)
        self.firmware("0")
        self.write("proc/meminfo", Path("/proc/meminfo").read_text())
        self.stall(0, 0)

    def write(self, path: str, text: str) -> None:
        """Replaces a file at once, so that none is read half written."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(file.name + ".new")
        fresh.write_text(text.rstrip("\n") + "\n")
        shutil.move(fresh, file)

    def heat(self, celsius: float) -> None:
        """Its temperature."""
        self.write("sys/class/thermal/thermal_zone0/temp", str(int(celsius * 1000)))

    def firmware(self, bits: str) -> None:
        """What `vcgencmd get_throttled` would say, in hexadecimal."""
        self.write(THROTTLED, bits)

    def stall(self, some: float, full: float) -> None:
        """Percent of the last ten seconds that some task waited for memory, and all."""
        self.write(
            "proc/pressure/memory",
            "".join(
                f"{name} avg10={percent:.2f} avg60=0.00 avg300=0.00 total=1\n"
                for name, percent in (("some", some), ("full", full))
            ),
        )

    def available(self, mib: int) -> None:
        """The memory that it can still give."""
        text = (self.root / "proc/meminfo").read_text()
        line = f"MemAvailable: {mib * 1024} kB"
        self.write("proc/meminfo", re.sub(r"MemAvailable:.*", line, text))

    def cgroup(self, limit: int) -> None:
        """The limit of the daemon's cgroup, in bytes."""
        self.write("proc/self/cgroup", "0::/system.slice/chaski.service")
        self.write("sys/fs/cgroup/system.slice/chaski.service/memory.max", "max")
        self.write("sys/fs/cgroup/system.slice/memory.max", str(limit))
