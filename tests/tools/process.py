"""What the kernel tells of a running process."""

import os
import re
from pathlib import Path


def resident_kibibytes(pid: int) -> int:
    """What it has in memory now, files that it maps counted."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])


def memory(pid: int) -> float:
    """The same in megabytes."""
    return resident_kibibytes(pid) / 1000


def cpu_seconds(pid: int) -> float:
    """Seconds of a processor that all its threads have had."""
    # Behind the name, which may hold anything: the state is the third field.
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
