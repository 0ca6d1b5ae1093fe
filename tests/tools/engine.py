"""Asks our engine, through the built `chaski`, for tokens and for logits."""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .programs import run

FLOAT = ("--activations", "f32", "--kv-cache", "f32")
"""The path that rounds nothing but the weights, for comparison with others'
f32: without it activations are int8 and the KV cache f16."""

Prompt = str | Sequence[int] | dict
"""Text to be continued, token ids, or a line of `generate --batch` as it is."""


def generate(
    chaski: Path,
    folder: Path,
    prompts: Sequence[Prompt],
    max_tokens: int,
    *options: str,
    emulator: Sequence[str] = (),
    timeout: float = 600,
) -> list[dict]:
    """Greedy tokens of each prompt, end-of-sequence tokens notwithstanding."""
    lines = []
    for prompt in prompts:
        if isinstance(prompt, str):
            prompt = {"prompt": prompt}
        elif not isinstance(prompt, dict):
            prompt = {"ids": [int(token) for token in prompt]}
        lines.append(json.dumps(prompt))
    result = run(
        *emulator, chaski, "generate", "--model", folder, "--batch", "--json", "--ignore-eos",
        "--temperature", "0", "--max-tokens", str(max_tokens), *options,
        input="\n".join(lines) + "\n", timeout=timeout,
    )  # fmt: skip
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(answers) == len(prompts), (len(answers), len(prompts), result.stderr)
    for answer in answers:
        assert "error" not in answer, answer
        assert len(answer["tokens"]) == max_tokens, answer
    return answers


def logits(
    chaski: Path,
    folder: Path,
    ids: Sequence[int],
    *options: str,
    emulator: Sequence[str] = (),
    timeout: float = 300,
) -> np.ndarray:
    """Our engine's logits of the last position."""
    handle, name = tempfile.mkstemp(suffix=".f32")
    os.close(handle)
    try:
        run(
            *emulator, chaski, "logits", "--model", folder, "--ids", ",".join(map(str, ids)),
            "--output", name, *options, timeout=timeout,
        )  # fmt: skip
        return np.fromfile(name, dtype="<f4")
    finally:
        os.unlink(name)
