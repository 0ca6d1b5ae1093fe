"""llama.cpp, as its own programs or as PyPI's llama-cpp-python, to be measured.

Run as a program it measures llama-cpp-python, in a process of its own so that
no threads of the library are left beside ours:

    python benches/peers.py MODEL.gguf THREADS GENERATE REPETITIONS PROMPT,.. > FIGURES.json
"""

import json
import os
import sys
import time
from pathlib import Path

from common import Unmeasurable, parsed, program, run, whole_numbers


class LlamaBench:
    """llama-bench; llama-completion, if given, for the time to the first token."""

    def __init__(self, bench: Path, completion: Path | None):
        self.bench = program("llama-bench", bench)
        self.completion = program("llama-completion", completion) if completion else None
        self.name = "llama-bench"
        self.version = ""

    def speeds(
        self, gguf: Path, threads: int, prompts: list[int], generate: int, repetitions: int
    ) -> dict[str, float]:
        """Tokens a second of each test, by its name."""
        rows = parsed([
            self.bench, "-m", gguf, "-t", str(threads), "-r", str(repetitions), "-o", "json",
            "-p", ",".join(map(str, prompts)), "-n", str(generate),
        ])  # fmt: skip
        self.version = f"build {rows[0]['build_number']}, commit {rows[0]['build_commit']}"
        return {
            f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}": row["avg_ts"]
            for row in rows
        }

    def first_token(self, gguf: Path, threads: int, prompt: str) -> float | None:
        """Seconds of a process that computes a prompt and one token."""
        if self.completion is None:
            return None
        start = time.perf_counter()
        # Warming up is for servers: it would only make the peer later.
        run(
            self.completion, "-m", gguf, "-t", str(threads), "-p", prompt, "-n", "1",
            "-no-cnv", "--no-warmup", "--temp", "0", "-c", "512",
        )  # fmt: skip
        return time.perf_counter() - start


class LlamaCppPython:
    """llama-cpp-python of the Python that runs this. No time to the first token:
    it would be Python's own start that is measured."""

    def __init__(self):
        try:
            import llama_cpp
        except ImportError as error:
            raise Unmeasurable(
                f"no peer ({error}): give --llama-bench PATH, or run this with a Python "
                "that has llama-cpp-python"
            ) from error
        self.name, self.version = "llama-cpp-python", llama_cpp.__version__

    def speeds(
        self, gguf: Path, threads: int, prompts: list[int], generate: int, repetitions: int
    ) -> dict[str, float]:
        """Tokens a second of each test, by its name."""
        return parsed([
            sys.executable, os.fspath(Path(__file__).resolve()), gguf, str(threads),
            str(generate), str(repetitions), ",".join(map(str, prompts)),
        ])  # fmt: skip

    def first_token(self, gguf: Path, threads: int, prompt: str) -> None:
        """Not measured."""


def _measure(gguf: str, threads: int, generate: int, repetitions: int, prompts: list[int]):
    import llama_cpp

    longest = max([*prompts, generate + 1])
    model = llama_cpp.Llama(
        gguf, n_ctx=longest, n_batch=longest, n_ubatch=512, n_threads=threads,
        n_threads_batch=threads, n_gpu_layers=0, logits_all=False, verbose=False,
    )  # fmt: skip
    vocabulary = model.n_vocab()

    def ids(count: int) -> list[int]:
        return [(7919 * place + 1) % vocabulary for place in range(count)]

    def seconds(before: list[int], steps: list[list[int]]) -> float:
        model.reset()
        if before:
            model.eval(before)
        start = time.perf_counter()
        for step in steps:
            model.eval(step)
        return time.perf_counter() - start

    figures = {}
    tests = {f"pp{prompt}": (prompt, [], [ids(prompt)]) for prompt in prompts}
    tests[f"tg{generate}"] = (generate, [1], [[token] for token in ids(generate)])
    for name, (tokens, before, steps) in tests.items():
        seconds(before, steps)
        times = [seconds(before, steps) for _ in range(repetitions)]
        figures[name] = sum(tokens / each for each in times) / repetitions
    return figures


if __name__ == "__main__":
    gguf, *counts, prompts = sys.argv[1:]
    print(json.dumps(_measure(gguf, *map(int, counts), whole_numbers(prompts))))
