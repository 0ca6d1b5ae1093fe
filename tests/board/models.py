"""Small models for the board, and what they must answer there.

Their weights are random, and so are their words; but greedy tokens are the same on
every machine where the best is ahead of the second by more than rounding moves it.
Questions with such answers are looked for here, by the programs of this machine.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import safetensors.torch

from tools import llama
from tools.programs import run

TOKENS = 8
LONG = 400
"""Tokens of a long answer: seconds of work for the board."""
END = 2
"""The token that would end an answer."""
STORY = "Tell a long story"
TEXTS = [f"Tell me of the {subject}" for subject in (
    "board", "dog", "fox", "post", "message", "lamp", "door", "river", "cat", "star", "tree",
    "sea", "house", "road", "bird", "rain", "stone", "wind", "fire", "moon", "boat", "bread",
)]  # fmt: skip
WAYS = [(), ("--backend", "scalar"), ("--activations", "f32", "--kv-cache", "f32")]
"""Options that change how it is rounded, and nothing else."""


@dataclass(frozen=True)
class Question:
    """A message of a user."""

    text: str
    answer: str = field(repr=False)
    tokens: int = TOKENS


class Model:
    """A model folder on this machine."""

    def __init__(self, folder: Path, chaski: Path):
        self.folder = folder
        self.name = folder.name
        self._chaski = chaski

    @cached_property
    def questions(self) -> list[Question]:
        """Questions with one answer."""
        ways = [self._answers(*way) for way in WAYS]
        found = [
            Question(text, answers[0]["text"])
            for text, *answers in zip(TEXTS, *ways, strict=True)
            if all(answer["tokens"] == answers[0]["tokens"] for answer in answers)
        ]
        assert len(found) >= 3, f"only {len(found)} of {len(TEXTS)} questions have one answer"
        return found

    def _answers(self, *options: str) -> list[dict]:
        lines = "".join(json.dumps({"chat": text}) + "\n" for text in TEXTS)
        made = run(
            self._chaski, "generate", "--model", self.folder, "--batch", "--json",
            "--temperature", "0", "--max-tokens", str(TOKENS), *options, input=lines,
        )  # fmt: skip
        return [json.loads(line) for line in made.stdout.splitlines()]


def make(place: Path, name: str, layers: int, quantize: Path, chaski: Path) -> Model:
    """A Llama of some megabytes; its answers never end by themselves."""
    source = place / f"{name}-source"
    shape = llama.Llama(name, hidden=256, intermediate=1024, heads=8, kv_heads=4, layers=layers)
    llama.make(shape, source, seed=layers)
    weights = safetensors.torch.load_file(source / "model.safetensors")
    # Of 384 logits, one that is 0 is not the largest.
    weights["lm_head.weight"][END] = 0.0
    safetensors.torch.save_file(weights, source / "model.safetensors", {"format": "pt"})
    run(quantize, source, "-o", place / name)
    return Model(place / name, chaski)


def with_wrong_hash(model: Model, name: str) -> Path:
    """A copy of which one byte of the weights is another than its maker wrote."""
    copy = model.folder.parent / name
    shutil.copytree(model.folder, copy)
    data = copy / "model.onnx.data"
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    return copy


def with_broken_graph(model: Model, name: str) -> Path:
    """A copy that is what its manifest says, and cannot be loaded."""
    copy = model.folder.parent / name
    shutil.copytree(model.folder, copy)
    graph = copy / "model.onnx"
    content = graph.read_bytes()[:-1000]
    graph.write_bytes(content)
    manifest = json.loads((copy / "chaski.json").read_text())
    digest = hashlib.sha256(content).hexdigest()
    manifest["files"]["model.onnx"] = {"bytes": len(content), "sha256": digest}
    (copy / "chaski.json").write_text(json.dumps(manifest))
    return copy
