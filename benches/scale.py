#!/usr/bin/env python3
"""Speed against the model's size and the context's length, as markdown tables.

    benches/scale.py --work FOLDER [--shapes smollm2-135m,llama-3.2-1b] [--threads 2]

The models are of random weights in the shapes of tests/shapes, made once in the work
folder (8B takes 5 GB there); only their size counts. A token reads all weights and, in
each layer, the KV cache so far: the last columns of a table tell what reading the cache
makes a token slower, (time at the first depth + KV bytes since / read bandwidth) / (time at
the first depth), beside the slowdown that was measured. The read bandwidth is `chaski
bench`'s of the same run.
"""

import argparse
import json
from pathlib import Path

import common
from common import CHECKOUT, Unmeasurable, parsed, program, run, say, table, whole_numbers

SHAPES = {
    "smollm2-135m": (64, 3),
    "llama-3.2-1b": (16, 2),
    "llama-3.2-3b": (8, 1),
    "llama-3.1-8b": (4, 1),
}
"""Tokens to produce and repetitions, fewer where a token takes longer."""

DEPTHS = [128, 1024, 4096, 8192]
PROMPT = 512

KV_BYTES = {"f16": lambda head_dim: 2 * head_dim, "int8": lambda head_dim: head_dim + 4}
"""Of one vector of a head: int8 has an f32 scale for each."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="where the models are made")
    parser.add_argument("--shapes", default=",".join(SHAPES), help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--depths", type=whole_numbers, default=DEPTHS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kv-caches", default="f16,int8")
    parser.add_argument("--chaski", type=Path, help="ours (else the one built here)")
    parser.add_argument("--json", type=Path, help="write all figures to this file too")
    given = parser.parse_args()
    given.shapes, given.kv_caches = given.shapes.split(","), given.kv_caches.split(",")
    if unknown := set(given.shapes) - set(SHAPES):
        parser.error(f"no shape {', '.join(sorted(unknown))}: there are {', '.join(SHAPES)}")
    if unknown := set(given.kv_caches) - set(KV_BYTES):
        parser.error(f"no KV cache {', '.join(sorted(unknown))}: there are {', '.join(KV_BYTES)}")
    return given


def model(work: Path, shape: str) -> Path:
    """The model folder of a shape; chaski-quantize writes it whole or not at all."""
    folder = work / shape
    if not folder.exists():
        say(f"making {folder}")
        work.mkdir(parents=True, exist_ok=True)
        run(
            program("chaski-quantize"), "--random", CHECKOUT / "tests" / "shapes" / f"{shape}.json",
            "-o", folder, "--quiet",
        )  # fmt: skip
    return folder


def kv_bytes(architecture: dict, kv_cache: str, depth: int) -> int:
    """Keys and values of so many tokens."""
    vectors = 2 * architecture["layers"] * architecture["kv_heads"] * depth
    return vectors * KV_BYTES[kv_cache](architecture["head_dim"])


def fitting(depths: list[int], shape: str, architecture: dict) -> list[int]:
    """The depths, those cut that leave no room for the tokens in the model's context."""
    most = architecture["context_length"] - SHAPES[shape][0] - 1
    if cut := [depth for depth in depths if depth > most]:
        say(f"{shape} takes {most} tokens before those measured: that for {cut}")
    return list(dict.fromkeys(min(depth, most) for depth in depths))


def speeds(
    given: argparse.Namespace, folder: Path, shape: str, kv_cache: str, depths: list[int]
) -> dict:
    """Tokens a second at each depth, of a prompt, and what they are to be compared with."""
    generate, repetitions = SHAPES[shape]

    def bench(prompt: int, tokens: int, depths: list[int]) -> dict:
        return parsed([
            program("chaski", given.chaski), "bench", "--model", folder, "--json", "-",
            "--threads", str(given.threads), "--repetitions", str(repetitions),
            "--kv-cache", kv_cache, "--prompt", str(prompt), "--generate", str(tokens),
            "--depth", ",".join(map(str, depths)),
        ])  # fmt: skip

    def tokens_per_second(report: dict, name: str) -> float:
        tests = {test["name"]: test for test in report["runs"][0]["tests"]}
        if name not in tests:
            raise Unmeasurable(f"`chaski bench` gave no row {name}, only {', '.join(tests)}")
        return tests[name]["tokens_per_second"]["mean"]

    # The bench takes every prompt at every depth: a long one only at depth 0.
    prefill, decode = bench(PROMPT, 1, [0]), bench(1, generate, depths)
    bandwidth = decode["runs"][0]["read_bytes_per_second"]
    if bandwidth is None:
        raise Unmeasurable("`chaski bench` had no memory to measure the read bandwidth with")
    return {
        "weight_bytes": decode["model"]["weight_bytes_per_token"],
        "read_bytes_per_second": bandwidth,
        "prefill": tokens_per_second(prefill, f"pp{PROMPT}"),
        "decode": [tokens_per_second(decode, f"tg{generate} @ d{depth}") for depth in depths],
    }


def measure() -> None:
    given = arguments()
    measured = []
    busy = common.busy_share()
    for shape in given.shapes:
        folder = model(given.work, shape)
        manifest = json.loads((folder / "chaski.json").read_text())
        depths = fitting(given.depths, shape, manifest["architecture"])
        for kv_cache in given.kv_caches:
            busy = max(busy, common.busy_share())
            say(f"{shape}, KV cache in {kv_cache}")
            found = speeds(given, folder, shape, kv_cache, depths)
            architecture = manifest["architecture"]
            base, bandwidth = found["decode"][0], found["read_bytes_per_second"]
            first = kv_bytes(architecture, kv_cache, depths[0])
            measured.append({
                "shape": shape, "kv_cache": kv_cache, "weight_bytes": found["weight_bytes"],
                "read_bytes_per_second": bandwidth, "prefill": found["prefill"],
                "depths": [
                    {
                        "depth": depth, "tokens_per_second": speed,
                        "slowdown": base / speed,
                        "reading": 1
                        + base * (kv_bytes(architecture, kv_cache, depth) - first) / bandwidth,
                    }
                    for depth, speed in zip(depths, found["decode"])
                ],
            })  # fmt: skip
    print(f"{given.threads} threads; at most {busy:.0%} of the processors were in use by others.")
    common.warn_if_busy(busy)
    for kv_cache in given.kv_caches:
        rows = [row for each in measured if each["kv_cache"] == kv_cache for row in lines(each)]
        headers = [
            "model", "weights (MB)", f"pp{PROMPT} tok/s", "depth", "tok/s", "slowdown",
            "by reading", "ratio",
        ]  # fmt: skip
        print(f"\nKV cache in {kv_cache}:\n\n{table(headers, rows)}")
    if given.json:
        report = {"threads": given.threads, "busy_share": busy, "measured": measured}
        given.json.write_text(json.dumps(report, indent=1) + "\n")


def lines(each: dict) -> list[list[str]]:
    """A model's rows, its own figures in the first of them only."""
    own = [each["shape"], f"{each['weight_bytes'] / 1e6:.0f}", f"{each['prefill']:.1f}"]
    return [
        (own if place == 0 else [""] * len(own)) + [
            str(at["depth"]), f"{at['tokens_per_second']:.2f}", f"{at['slowdown']:.2f}",
            f"{at['reading']:.2f}", f"{at['slowdown'] / at['reading']:.2f}",
        ]
        for place, at in enumerate(each["depths"])
    ]  # fmt: skip


if __name__ == "__main__":
    common.main(measure)
