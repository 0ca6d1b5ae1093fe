"""Where the built programs are and how the tests run them."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
"""The root of the checkout under test."""

AARCH64 = "aarch64-unknown-linux-gnu"


def target_dir() -> Path:
    """Cargo's target folder, as cargo itself would choose it."""
    chosen = os.environ.get("CARGO_TARGET_DIR")
    return (CHECKOUT / chosen) if chosen else CHECKOUT / "target"


def cache_dir() -> Path:
    """Downloads are kept here between runs, inside the checkout."""
    path = target_dir() / "test-cache"
    path.mkdir(parents=True, exist_ok=True)
    return path


@dataclass(frozen=True)
class Binaries:
    """Paths of the built programs."""

    quantize: Path
    chaskid: Path
    chaski: Path


def release_program(name: str, target: str | None = None) -> Path:
    """The path of one built program; says how to build it if it is not there."""
    # cross/build has a target folder of its own.
    folder = target_dir() / "cross" / target / "release" if target else target_dir() / "release"
    path = folder / name
    if not path.is_file():
        remedy = "cross/build" if target else "cargo build --release"
        raise FileNotFoundError(f"{path} is not built: run `{remedy}` first")
    return path


def run(
    *command: str | os.PathLike,
    check: bool = True,
    timeout: float = 300,
    input: str | None = None,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end and gives its exit code and both its streams.

    With `check` a failure raises an error that carries what the program said,
    which CalledProcessError keeps to itself. `env` is added to our own.
    """
    words = [os.fspath(word) for word in command]
    result = subprocess.run(
        words,
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout,
        env={**os.environ, **(env or {})},
        cwd=cwd,
    )
    if check and result.returncode != 0:
        raise AssertionError(
            f"`{' '.join(words)}` ended with {result.returncode}\n"
            f"--- stdout\n{result.stdout[-4000:]}\n--- stderr\n{result.stderr[-4000:]}"
        )
    return result
