"""Memory, interruption and repetition of a conversion of some size."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools import large_llama
from tools.programs import run

MIB = 1 << 20

BOUND = 256 * MIB
"""Peak memory at any number of layers: a few tensors' worth, not the model's."""

GROWTH = 64 * MIB
"""What three times the layers may add: names and offsets, and chance."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[int, Path]:
    place = tmp_path_factory.mktemp("large")
    template = large_llama.make_small(place / "template")
    sizes = {}
    for layers in (8, 24):
        sizes[layers] = large_llama.write(place / str(layers), layers, template)
    assert sizes[24] > 800_000_000, sizes
    return {layers: place / str(layers) for layers in sizes}


def start(program: Path, *arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [str(program), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


def peak_memory(program: Path, *arguments) -> int:
    """The largest resident set of one run, mapped files included, in bytes.

    By way of a small process: a child counts its parent's resident set as its
    own until it executes another program, and pytest's is large.
    """
    return int(run(sys.executable, "-c", MEASURE, program, *arguments).stdout)


def test_peak_memory_does_not_grow_with_the_model(sources, chaski_quantize, tmp_path):
    peaks = {
        layers: peak_memory(chaski_quantize, source, "-o", tmp_path / str(layers))
        for layers, source in sources.items()
    }
    print({layers: f"{peak / MIB:.0f} MiB" for layers, peak in peaks.items()})
    assert max(peaks.values()) < BOUND, peaks
    assert peaks[24] - peaks[8] < GROWTH, peaks


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_conversion_leaves_nothing(sources, chaski_quantize, tmp_path, number):
    process = start(chaski_quantize, sources[24], "-o", tmp_path / "model")
    deadline = time.monotonic() + 60
    # Once there is something that could be left behind.
    while not any(path.stat().st_size for path in tmp_path.rglob("*.data")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode not in (0, 101)
    assert "interrupted" in stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_after_a_power_cut_the_next_run_succeeds(sources, chaski_quantize, tmp_path):
    """SIGKILL leaves what it leaves, but never under the output's name."""
    process = start(chaski_quantize, sources[24], "-o", tmp_path / "model")
    deadline = time.monotonic() + 60
    while not any(tmp_path.iterdir()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.3)
    process.kill()
    process.communicate()
    assert not (tmp_path / "model").exists()
    run(chaski_quantize, sources[8], "-o", tmp_path / "model")
    assert (tmp_path / "model" / "chaski.json").is_file()


def test_a_second_run_writes_the_same_bytes(sources, chaski_quantize, tmp_path):
    """However many threads: the manifest's hashes are those of the first."""
    manifests = []
    for threads in ("1", "3"):
        folder = tmp_path / threads
        run(chaski_quantize, sources[8], "-o", folder, "--threads", threads)
        manifests.append(json.loads((folder / "chaski.json").read_text()))
    assert manifests[0]["files"] == manifests[1]["files"]
