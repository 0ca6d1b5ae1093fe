"""Cycles of the int8 products' inner loops on ARM cores, as llvm-mca estimates them.

    python benches/inner_loops.py --chaski PROGRAM

Takes the loops out of the aarch64 program itself: in each kernel, the innermost
loop that multiplies, of 4-bit weights without zero points: it has the fewest
instructions. (A decode function computes prompts' last rows, too; its decode loop
is the one that widens the scales of eight rows.) What llvm-mca does not know is
memory: it takes every load for a hit in the first cache. Nor does it tell these cores
apart: it has the model of a Cortex-A57 for all of them. Newer ones know server cores
that are like them: neoverse-n1, an A76, and neoverse-n2, with the A78's two vector pipes:

    benches/inner_loops.py --chaski PROGRAM --llvm-mca llvm-mca-19 \\
        --cpu cortex-a72 --cpu neoverse-n1 --cpu neoverse-n2

Needs llvm-mca (Debian's llvm) and aarch64-linux-gnu-objdump.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

KERNELS = {
    "neon, decode": ("int8::neon::run", {"smlal": 8, "smlal2": 8, "smull": 8, "smull2": 8}),
    "dotprod, decode": ("int8::dotprod::run", {"sdot": 16}),
    "dotprod, prefill": ("int8::prefill::sdot::sdot", {"sdot": 16}),
    "i8mm, prefill": ("int8::prefill::smmla::smmla", {"smmla": 32}),
}
"""Of each kernel its function, and the products of its instructions."""

BLOCK = 32
DECODE_ROWS = 8
"""Rows of weights that decode takes together."""

Instruction = tuple[int, str, str]
"""Address, mnemonic, operands."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chaski", type=Path, required=True, help="the aarch64 program")
    parser.add_argument("--cpu", action="append", help="processors to estimate for")
    parser.add_argument("--llvm-mca", default="llvm-mca", help="the llvm-mca to ask")
    arguments = parser.parse_args()
    tools = {arguments.llvm_mca: "llvm", "aarch64-linux-gnu-objdump": "binutils-aarch64-linux-gnu"}
    for program, package in tools.items():
        if not shutil.which(program):
            sys.exit(f"{program} is missing: apt-get install {package}")
    cpus = arguments.cpu or ["cortex-a72", "cortex-a76", "cortex-a78"]
    functions = disassemble(arguments.chaski)
    print("| per 32 weights | blocks in a round | instructions | " + " | ".join(cpus) + " |")
    print("| --- | ---: | ---: |" + " ---: |" * len(cpus))
    for kernel, (function, products) in KERNELS.items():
        found = [body for name, body in functions if function in name]
        if not found:
            sys.exit(f"{arguments.chaski} has no function {function}: is it the aarch64 build?")
        loops = {(len(loop), blocks(loop, products)): loop for f in found for loop in innermost(f)}
        if "decode" in kernel:
            loops = {key: loop for key, loop in loops.items() if scales(loop) >= DECODE_ROWS}
        most = max(count for _, count in loops)
        length, count = min(key for key in loops if key[1] == most)
        cycles = [mca(arguments.llvm_mca, loops[length, count], cpu) / count for cpu in cpus]
        figures = " | ".join(f"{c:.1f}" for c in cycles)
        print(f"| {kernel} | {count:.0f} | {length / count:.2f} | {figures} |")


def disassemble(program: Path) -> list[tuple[str, list[Instruction]]]:
    command = ["aarch64-linux-gnu-objdump", "-d", "-C", "--no-show-raw-insn", program]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    functions: list[tuple[str, list[Instruction]]] = []
    for line in text.splitlines():
        if head := re.match(r"^[0-9a-f]+ <(.*)>:", line):
            functions.append((head[1], []))
        elif functions and (parts := re.match(r"^ *([0-9a-f]+):\t(\S+)\s*(.*)", line)):
            functions[-1][1].append((int(parts[1], 16), parts[2], parts[3].split("//")[0]))
    return functions


def innermost(body: list[Instruction]) -> list[list[Instruction]]:
    """The loops without loops in them: from a branch back to where it goes."""
    places = {address: index for index, (address, _, _) in enumerate(body)}
    spans = []
    for index, (_, mnemonic, operands) in enumerate(body):
        goal = re.search(r"\b([0-9a-f]{4,}) <", operands)
        if mnemonic.startswith(("b.", "cb", "tb")) or mnemonic == "b":
            start = places.get(int(goal[1], 16)) if goal else None
            if start is not None and start < index:
                spans.append((start, index))
    inner = [
        (a, b) for a, b in spans if not any((a, b) != (c, d) and a <= c and d <= b for c, d in spans)
    ]
    return [body[a : b + 1] for a, b in inner]


def blocks(loop: list[Instruction], products: dict[str, int]) -> float:
    return sum(products.get(mnemonic, 0) for _, mnemonic, _ in loop) / BLOCK


def scales(loop: list[Instruction]) -> int:
    return sum(mnemonic == "fcvtl" for _, mnemonic, _ in loop)


def mca(program: str, loop: list[Instruction], cpu: str) -> float:
    """Cycles of a round, the branch left out."""
    source = "\n".join(f"{mnemonic} {operands}" for _, mnemonic, operands in loop[:-1])
    features = "+dotprod,+i8mm,+fullfp16"
    command = [program, "-mtriple=aarch64", f"-mcpu={cpu}", f"-mattr={features}"]
    command += ["-iterations=100", "-instruction-info=false", "-resource-pressure=false"]
    done = subprocess.run(command, input=source, capture_output=True, text=True)
    cycles = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    if done.returncode != 0 or not cycles:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return int(cycles[1]) / 100


if __name__ == "__main__":
    main()
