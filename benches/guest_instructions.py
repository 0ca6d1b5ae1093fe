"""Guest instructions per token of the aarch64 `chaski`, counted under qemu.

    python benches/guest_instructions.py --chaski PROGRAM --model FOLDER [--model FOLDER ..]

The counts are exact and repeatable on any host; they are not cycles. Work is
measured as the difference of two runs that differ in nothing but its amount:

- decode: the same 16-token prompt, then 4 or 20 tokens one by one;
- prompt of 16: 16 or 32 prompt tokens in steps of 16, as a short prompt takes them;
- prompt of 128: 128 or 256 prompt tokens in steps of 128, as a long one does.

Needs gcc and Debian's qemu-user (the dynamic qemu-aarch64: the static one loads
no plugins) and the C library of libc6-arm64-cross.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PLUGIN = Path(__file__).with_suffix(".c")
PROMPT = 16
SYSROOT = "/usr/aarch64-linux-gnu"
MILLION = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chaski", type=Path, required=True, help="the aarch64 program")
    parser.add_argument("--model", type=Path, required=True, action="append", help="model folders")
    parser.add_argument("--cpu", action="append", help="processors that qemu is to be")
    parser.add_argument("--classes", action="store_true", help="instructions by class, too")
    arguments = parser.parse_args()
    for program, package in {"qemu-aarch64": "qemu-user", "gcc": "gcc"}.items():
        if not shutil.which(program):
            sys.exit(f"{program} is missing: apt-get install {package}")
    # The counters are not atomic, and the program loads with two threads: on one core
    # of the host they hardly ever meet.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        plugin = Path(folder) / "libguest.so"
        subprocess.run(
            ["gcc", "-O2", "-fPIC", "-shared", "-o", plugin, PLUGIN], check=True
        )
        report(Counter(arguments.chaski, plugin, Path(folder)), arguments)


def report(counter: "Counter", arguments: argparse.Namespace) -> None:
    print("| million instructions per token | cpu | decode | prompt of 16 | prompt of 128 |")
    print("| --- | --- | ---: | ---: | ---: |")
    for model in arguments.model:
        for cpu in arguments.cpu or ["cortex-a72", "cortex-a76", "max"]:
            work = [
                counter.per_token(model, cpu, (PROMPT + 4, PROMPT), (PROMPT + 20, PROMPT), 16),
                counter.per_token(model, cpu, (16, None), (32, None), 16),
                counter.per_token(model, cpu, (128, None), (256, None), 128),
            ]
            totals = " | ".join(f"{counts['total'] / MILLION:.1f}" for counts in work)
            print(f"| {model.name} | {cpu} | {totals} |", flush=True)
            if arguments.classes:
                for name in work[0]:
                    row = " | ".join(f"{counts[name] / MILLION:.2f}" for counts in work)
                    print(f"| {name} | | {row} |")


class Counter:
    """Runs the program under the plugin."""

    def __init__(self, chaski: Path, plugin: Path, scratch: Path) -> None:
        self.chaski = chaski
        self.plugin = plugin
        self.scratch = scratch

    def per_token(
        self,
        model: Path,
        cpu: str,
        fewer: tuple[int, int | None],
        more: tuple[int, int | None],
        chunk: int,
    ) -> dict[str, float]:
        """Instructions by class of each token that `more` has beyond `fewer`.

        Both are a number of tokens and, unless all are of the prompt, of those that are.
        """
        before = self.count(model, cpu, *fewer, chunk)
        after = self.count(model, cpu, *more, chunk)
        tokens = more[0] - fewer[0]
        return {name: (after[name] - before[name]) / tokens for name in after}

    def count(
        self, model: Path, cpu: str, tokens: int, prompt: int | None, chunk: int
    ) -> dict[str, int]:
        ids = ",".join(str(2 + 37 * i % 250) for i in range(tokens))
        command = [
            "qemu-aarch64", "-L", SYSROOT, "-cpu", cpu, "-plugin", self.plugin,
            self.chaski, "logits", "--model", model, "--threads", "1", "--ids", ids,
            "--prefill-chunk", str(chunk), "--output", self.scratch / "logits",
        ]  # fmt: skip
        if prompt is not None:
            command += ["--split", str(prompt)]
        done = subprocess.run(command, capture_output=True, text=True)
        exits = re.findall(r"^\[insn\] exit .*$", done.stderr, re.MULTILINE)
        if done.returncode != 0 or not exits:
            sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
        return {name: int(count) for name, count in re.findall(r" (\S+)=(\d+)", exits[-1])}


if __name__ == "__main__":
    main()
