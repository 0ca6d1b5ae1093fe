"""Writes quantize/src/source/blocks/testdata/dequantised.bin.

For each encoding, in the order of the unit test that reads it: two (or more)
blocks of random bytes, 512 values together, then these values as llama.cpp's
`gguf` package dequantises them, as little-endian f32.

    python tests/tools/make_dequantised.py quantize/src/source/blocks/testdata/dequantised.bin
"""

import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize

VALUES = 512

# Places of the f16 fields in a block: random bits there could be NaN.
HALVES = {
    Type.F16: [0],
    Type.BF16: [0],
    Type.Q8_0: [0],
    Type.Q4_0: [0],
    Type.Q4_1: [0, 2],
    Type.Q5_0: [0],
    Type.Q5_1: [0, 2],
    Type.Q4_K: [0, 2],
    Type.Q5_K: [0, 2],
    Type.Q6_K: [208],
}


def main(path):
    random = np.random.default_rng(20240601)
    with open(path, "wb") as file:
        for kind, halves in HALVES.items():
            elements, size = GGML_QUANT_SIZES[kind]
            blocks = random.integers(0, 256, (VALUES // elements, size), dtype=np.uint8)
            for place in halves:
                scale = random.normal(0, 0.1, len(blocks))
                if kind == Type.BF16:
                    bits = (scale.astype(np.float32).view(np.uint32) >> 16).astype("<u2")
                else:
                    bits = scale.astype("<f2").view("<u2")
                blocks[:, place : place + 2] = bits.view(np.uint8).reshape(-1, 2)
            values = dequantize(blocks.reshape(1, -1), kind).reshape(-1)
            assert len(values) == VALUES and np.isfinite(values).all()
            file.write(blocks.tobytes())
            file.write(values.astype("<f4").tobytes())


if __name__ == "__main__":
    main(sys.argv[1])
