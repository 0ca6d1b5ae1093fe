"""What the scripts share: programs run to their end, tables, the state of the machine."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]

# For `tools`, which the tests have.
sys.path.insert(0, str(CHECKOUT / "tests"))

BUSY = 0.05
"""More of the processors than this in use by others, and figures are not to be trusted."""


class Unmeasurable(Exception):
    """Something is missing or failed; the message says what, and the remedy."""


def program(name: str, given: Path | None = None) -> Path:
    """A built program of ours, or the one that was given."""
    target = CHECKOUT / os.environ.get("CARGO_TARGET_DIR", "target")
    path = given or target / "release" / name
    if not path.is_file():
        remedy = "give the path of the program" if given else "run `cargo build --release`"
        raise Unmeasurable(f"{path} is not there: {remedy}")
    return path


def run(*command: str | os.PathLike, input: str | None = None) -> str:
    """Runs a program to its end; its standard output."""
    words = [os.fspath(word) for word in command]
    stdin = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
    result = subprocess.run(words, **stdin, capture_output=True, encoding="utf-8", errors="replace")
    if result.returncode != 0:
        raise Unmeasurable(
            f"`{' '.join(words)}` ended with {result.returncode}:\n{result.stderr[-2000:]}"
        )
    return result.stdout


def parsed(command: Sequence[str | os.PathLike]) -> dict | list:
    """Runs a program that prints JSON."""
    output = run(*command)
    try:
        return json.loads(output)
    except json.JSONDecodeError as error:
        raise Unmeasurable(f"{command[0]} printed no JSON ({error}): {output[:300]!r}") from error


def busy_share(seconds: float = 1.0) -> float:
    """How much of all processors is in use now, by others: nothing of ours runs meanwhile."""

    def ticks() -> tuple[int, int]:
        line = Path("/proc/stat").read_text().splitlines()[0]
        counts = [int(word) for word in line.split()[1:9]]
        return sum(counts), counts[3] + counts[4]

    total, idle = ticks()
    time.sleep(seconds)
    total_after, idle_after = ticks()
    return 1 - (idle_after - idle) / max(total_after - total, 1)


def warn_if_busy(busy: float) -> None:
    """Says in the output that the figures are not to be trusted."""
    if busy > BUSY:
        print("\n**The machine was not idle**: repeat it before quoting it.")


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table, the first column to the left and the others to the right."""
    widths = [max(3, *(len(row[i]) for row in [headers, *rows])) for i in range(len(headers))]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        words = [f"{first[0]:<{first[1]}}"] + [f"{cell:>{width}}" for cell, width in others]
        return "| " + " | ".join(words) + " |"

    first, *others = widths
    dashes = ["-" * first] + ["-" * (width - 1) + ":" for width in others]
    return "\n".join([line(headers), line(dashes), *map(line, rows)])


def whole_numbers(text: str) -> list[int]:
    """An argument such as `1,2`."""
    numbers = [int(word) for word in text.split(",")]
    if min(numbers) < 1:
        raise ValueError(text)
    return numbers


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def main(measure) -> None:
    """Runs a script's `measure()`; what is missing becomes one message and exit code 1."""
    try:
        measure()
    except Unmeasurable as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
