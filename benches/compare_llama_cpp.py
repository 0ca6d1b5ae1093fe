#!/usr/bin/env python3
"""Ours against llama.cpp on the same weights, in turns, as a markdown table and JSON.

    benches/compare_llama_cpp.py --source MODEL.gguf --work FOLDER \\
        --llama-quantize PATH --llama-bench PATH --llama-completion PATH
    benches/compare_llama_cpp.py --model FOLDER --gguf Q4_0.gguf --llama-bench PATH

Each round measures both, one right after the other, and who is first changes from
round to round: what the machine does in between then meets both, and the ratio of
a round is more certain than either figure. A ratio above 1 says that ours is faster.
Python's standard library is enough, but for the peer llama-cpp-python.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import common
from common import Unmeasurable, parsed, program, run, say, table, whole_numbers
from peers import LlamaBench, LlamaCppPython

PROMPTS, GENERATE = [512, 16], 64
FIRST = "first token (s)"
STARTUP_TOKENS = 16
TEXT = "The chasquis carried the messages of the Inca empire over the mountains, with llamas."


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="our model folder")
    parser.add_argument("--gguf", type=Path, help="the peer's Q4_0 file, of the same source")
    parser.add_argument("--source", type=Path, help="make both of this GGUF file")
    parser.add_argument("--work", type=Path, help="where --source puts them")
    parser.add_argument("--embedding-bits", choices=["4", "8"], default="8", help="for --source")
    parser.add_argument("--llama-quantize", type=Path, help="llama.cpp's program, for --source")
    parser.add_argument("--llama-bench", type=Path, help="the peer (else llama-cpp-python)")
    parser.add_argument("--llama-completion", type=Path, help="for the time to the first token")
    parser.add_argument("--chaski", type=Path, help="ours (else the one built here)")
    parser.add_argument("--threads", type=whole_numbers, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=2, help="in a round, of each test")
    parser.add_argument("--json", type=Path, help="write all figures to this file too")
    given = parser.parse_args()
    if given.rounds < 1 or given.repetitions < 1:
        parser.error("--rounds and --repetitions are at least 1")
    if given.source and not (given.work and given.llama_quantize):
        parser.error("--source needs --work and --llama-quantize")
    if not given.source and not (given.model and given.gguf):
        parser.error("give --model and --gguf, or --source")
    if given.llama_completion and not given.llama_bench:
        parser.error("--llama-completion goes with --llama-bench")
    return given


def make_both(given: argparse.Namespace) -> tuple[Path, Path]:
    """The source in 4 bits for either, embedding and head of as many bits in both."""
    given.work.mkdir(parents=True, exist_ok=True)
    bits = given.embedding_bits
    stem = f"{given.source.stem}-embedding{bits}"
    folder, gguf = given.work / stem, given.work / f"{stem}.gguf"
    if not folder.exists():
        say(f"making {folder}")
        run(
            program("chaski-quantize"), given.source, "-o", folder, "--quiet",
            "--scheme", "symmetric", "--embedding-bits", bits,
        )  # fmt: skip
    if not gguf.exists():
        say(f"making {gguf}")
        kind = {"4": "q4_0", "8": "q8_0"}[bits]
        # Renamed when whole: a next run takes what it finds.
        partial = gguf.with_suffix(".partial")
        run(
            program("llama-quantize", given.llama_quantize), "--allow-requantize", "--pure",
            "--token-embedding-type", kind, "--output-tensor-type", kind,
            given.source, partial, "Q4_0",
        )  # fmt: skip
        partial.rename(gguf)
    return folder, gguf


class Ours:
    """chaski, with the peer's interface."""

    def __init__(self, given: argparse.Namespace, folder: Path):
        self.chaski, self.folder = program("chaski", given.chaski), folder
        self.backend = ""

    def speeds(self, threads: int, repetitions: int) -> dict[str, float]:
        report = parsed([
            self.chaski, "bench", "--model", self.folder, "--json", "-",
            "--threads", str(threads), "--repetitions", str(repetitions),
            "--prompt", ",".join(map(str, PROMPTS)), "--generate", str(GENERATE),
        ])  # fmt: skip
        self.backend = report["kernel_backend"]
        return {test["name"]: test["tokens_per_second"]["mean"] for test in report["runs"][0]["tests"]}

    def first_token(self, threads: int, prompt: str) -> float:
        start = time.perf_counter()
        run(
            self.chaski, "generate", "--model", self.folder, "--threads", str(threads),
            "--prompt", prompt, "--max-tokens", "1",
        )  # fmt: skip
        return time.perf_counter() - start

    def startup_prompt(self) -> str:
        """The text's beginning that has the tokens wanted."""
        beginnings = [(TEXT * 4)[:end] for end in range(1, len(TEXT) * 4)]
        lines = run(
            self.chaski, "tokenize", "--model", self.folder, "--json",
            input="".join(json.dumps(text) + "\n" for text in beginnings),
        ).splitlines()  # fmt: skip
        for text, ids in zip(beginnings, lines, strict=True):
            if len(json.loads(ids)) == STARTUP_TOKENS and not text.endswith(" "):
                return text
        raise Unmeasurable(f"no beginning of the text has {STARTUP_TOKENS} tokens in this model")


def measure_round(given, ours: Ours, peer, gguf: Path, prompt: str, number: int) -> list[dict]:
    """Both, for each number of threads."""
    pairs = []
    for threads in given.threads:
        figures = {}
        sides = ["ours", "theirs"]
        for side in sides if number % 2 else reversed(sides):
            if side == "ours":
                found = ours.speeds(threads, given.repetitions)
                found[FIRST] = ours.first_token(threads, prompt)
            else:
                found = peer.speeds(gguf, threads, PROMPTS, GENERATE, given.repetitions)
                found[FIRST] = peer.first_token(gguf, threads, prompt)
            figures[side] = found
        for test in [f"tg{GENERATE}", *(f"pp{prompt}" for prompt in PROMPTS), FIRST]:
            mine, other = figures["ours"][test], figures["theirs"][test]
            if other is None:
                continue
            ratio = other / mine if test == FIRST else mine / other
            pairs.append({
                "round": number, "threads": threads, "test": test, "ours": mine,
                "theirs": other, "ratio": ratio,
            })  # fmt: skip
        say(f"round {number} of {given.rounds}, {threads} threads: done")
    return pairs


def summary(pairs: list[dict]) -> list[list[str]]:
    """Rows: the medians, and the paired ratio with its spread."""
    rows = []
    for test, threads in dict.fromkeys((pair["test"], pair["threads"]) for pair in pairs):
        of_row = [p for p in pairs if (p["test"], p["threads"]) == (test, threads)]
        ratios = [pair["ratio"] for pair in of_row]
        digits = 3 if test == FIRST else 1
        rows.append([
            test, str(threads),
            *(f"{statistics.median(p[side] for p in of_row):.{digits}f}" for side in ("ours", "theirs")),
            f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f}..{max(ratios):.2f}",
        ])  # fmt: skip
    return sorted(rows, key=lambda row: (int(row[1]), row[0] == FIRST))


def measure() -> None:
    given = arguments()
    folder, gguf = make_both(given) if given.source else (given.model, given.gguf)
    for path in (folder, gguf):
        if not path.exists():
            raise Unmeasurable(f"{path} is not there: --source makes both of one GGUF file")
    ours = Ours(given, folder)
    peer = LlamaBench(given.llama_bench, given.llama_completion) if given.llama_bench else LlamaCppPython()
    prompt = ours.startup_prompt()
    busy = common.busy_share()
    # Once for nothing: the files are in the page cache for both from here on.
    ours.first_token(1, prompt)
    peer.speeds(gguf, 1, [16], 1, 1)
    pairs = []
    for number in range(1, given.rounds + 1):
        busy = max(busy, common.busy_share())
        pairs += measure_round(given, ours, peer, gguf, prompt, number)
    print(
        f"Ours: kernels {ours.backend}. Peer: {peer.name}, {peer.version}. "
        f"Machine: {platform.machine()}, {given.rounds} rounds in turns; "
        f"before a round at most {busy:.0%} of the processors were in use by others.\n"
    )
    if busy > common.BUSY:
        print(
            "**The machine was not idle**: threads that wait for each other suffer most from "
            "that, on either side. Repeat it on an idle machine before quoting it.\n"
        )
    headers = ["test", "threads", "ours", "llama.cpp", "ratio", "ratio, min..max"]
    print(table(headers, summary(pairs)))
    if not any(pair["test"] == FIRST for pair in pairs):
        print("\nNot measured: the time to the first token; it takes --llama-completion.")
    if given.json:
        report = {
            "peer": peer.name, "peer_version": peer.version, "kernel_backend": ours.backend,
            "model": folder.name, "gguf": gguf.name, "busy_share": busy, "pairs": pairs,
        }  # fmt: skip
        given.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    common.main(measure)
