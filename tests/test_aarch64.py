"""The cross-compiled `chaski` answers on aarch64 as it does here.

On the float path with the same greedy tokens; with int8 activations, where the
last bit of a sum may round an activation the other way, with the same logits
but for a tolerance.

Under `-cpu cortex-a72` qemu has no dot product instructions and no f16
arithmetic, as a Raspberry Pi 4; `-cpu max` has all that qemu knows.
"""

import json
import random
import shutil

import numpy as np
import pytest

from tools import engine, llama
from tools.programs import AARCH64, CHECKOUT, release_program, run
from tools.prompts import CHAT, RAW

INT8_TOLERANCE = 0.06
"""Largest difference of a logit, relative to the largest logit."""

SYSROOT = "/usr/aarch64-linux-gnu"
"""Where Debian's libc6-arm64-cross has the loader and the C library."""


@pytest.fixture(params=["cortex-a72", "max"])
def emulator(request) -> list[str]:
    qemu = shutil.which("qemu-aarch64-static")
    assert qemu, "qemu-aarch64-static is missing: apt-get install qemu-user-static"
    return [qemu, "-L", SYSROOT, "-cpu", request.param]


@pytest.fixture(scope="module")
def cross_chaski():
    return release_program("chaski", AARCH64)


@pytest.fixture(scope="module")
def small_folder(chaski_quantize, tmp_path_factory):
    place = tmp_path_factory.mktemp("aarch64")
    llama.make(llama.Llama("small", hidden=128, intermediate=256, heads=8), place / "source")
    run(chaski_quantize, place / "source", "-o", place / "model")
    return place / "model"


def assert_same_tokens(native, cross, emulator, folder, prompts, tokens, timeout=600):
    here = engine.generate(native, folder, prompts, tokens, *engine.FLOAT)
    there = engine.generate(
        cross, folder, prompts, tokens, *engine.FLOAT, emulator=emulator, timeout=timeout
    )
    for ours, emulated in zip(here, there, strict=True):
        assert ours["prompt_tokens"] == emulated["prompt_tokens"]
        assert ours["tokens"] == emulated["tokens"]
        assert ours["text"] == emulated["text"]


def assert_near(native, cross, emulator, folder, ids, *options):
    """Logits of int8 activations: within some steps of an activation's rounding."""
    here = engine.logits(native, folder, ids, *options)
    there = engine.logits(cross, folder, ids, *options, emulator=emulator)
    difference = float(np.abs(here - there).max() / np.abs(here).max())
    assert difference < INT8_TOLERANCE, difference


def test_small_llama(chaski, cross_chaski, emulator, small_folder):
    dice = random.Random(4)
    prompts = [dice.choices(range(llama.VOCAB_SIZE), k=length) for length in (1, 17, 200)]
    assert_same_tokens(chaski, cross_chaski, emulator, small_folder, prompts, 32)
    for prompt in prompts:
        assert_near(chaski, cross_chaski, emulator, small_folder, prompt)
    assert_near(
        chaski, cross_chaski, emulator, small_folder, prompts[-1], "--split", "190",
        "--kv-cache", "int8",
    )  # fmt: skip


def test_smollm2(chaski, cross_chaski, emulator, smollm2_folder):
    prompts = [{"chat": CHAT[0]}, {"prompt": RAW[1]}]
    assert_same_tokens(chaski, cross_chaski, emulator, smollm2_folder, prompts, 16, timeout=900)
    ids = random.Random(5).choices(range(49152), k=40)
    assert_near(chaski, cross_chaski, emulator, smollm2_folder, ids, "--split", "35")


def test_smollm2_symmetric(chaski, cross_chaski, emulator, smollm2_symmetric_folder):
    """Other kernels: no zero points, and a 4-bit head."""
    ids = random.Random(6).choices(range(49152), k=40)
    for split in ("40", "36"):
        assert_near(chaski, cross_chaski, emulator, smollm2_symmetric_folder, ids, "--split", split)


def test_doctor(cross_chaski, emulator):
    """It knows the instructions, and that a machine that says nothing is an ARM."""

    def doctor(root: str) -> dict:
        arguments = ("doctor", "--config", "no/such.toml", "--root", root, "--json")
        return json.loads(run(*emulator, cross_chaski, *arguments, check=False).stdout)

    kernels = doctor("/")["machine"]["kernels"]
    best = {"cortex-a72": "neon", "max": "neon-i8mm"}[emulator[-1]]
    assert (kernels[0], kernels[-1]) == ("scalar", best)
    board = doctor(CHECKOUT / "tests/data/boards/hostile-empty")["board"]
    assert board["profile"] == "generic-arm64"
