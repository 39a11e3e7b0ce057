#!/usr/bin/env python3
"""Random quantised blocks and their values as the `gguf` Python package reads them.

Writes quant_blocks.safetensors. Run: python make_quant.py
"""

from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize

from common import save, versions

OUT = Path(__file__).parent / "quant_blocks.safetensors"
# Byte offsets of the f16 scales in a block.
SCALES = {
    Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0],
    Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2],
    Type.Q6_K: [208], Type.IQ4_NL: [0], Type.IQ4_XS: [0],
}
# f16 bit patterns that the first blocks get: zeros, subnormals (the smallest and the largest, both
# signs), smallest normals, one, a usual scale and a large one, negative ones.
SPECIAL = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x83FF, 0x0400, 0x8400, 0x3C00, 0xBC00,
           0x2E66, 0xAE66, 0x5640, 0xD640]


def scales(rng, count):
    """Finite f16 scales as raw u16: the special ones, then random of every usual size and sign."""
    usual = rng.normal(0, 1, count) * 10.0 ** rng.uniform(-5, 0, count)
    raw = usual.astype(np.float16).view(np.uint16)
    raw[:len(SPECIAL)] = SPECIAL[:count]
    return raw


def blocks(rng, kind):
    elements, size = GGML_QUANT_SIZES[kind]
    count = 60 if elements == 32 else 18
    raw = rng.integers(0, 256, (count, size), dtype=np.uint8)
    raw[-1], raw[-2] = 0x00, 0xFF  # every quant at its ends
    for k, offset in enumerate(SCALES[kind]):
        bits = np.roll(scales(rng, count), 3 * k)  # so that d and m are not special together
        raw[:, offset:offset + 2] = bits.view(np.uint8).reshape(count, 2)
    return raw


def halves(rng, kind):
    """F16 and BF16: specials (zeros, subnormals, largest, infinities), then random finite bits."""
    infinity, normal = (0x7C00, 0x0400) if kind == Type.F16 else (0x7F80, 0x0080)
    special = [0, 1, 2, normal - 1, normal, 0x3C00, 0x3F80, infinity - 1, infinity]
    bits = rng.integers(0, infinity, 512, dtype=np.uint16)
    bits |= rng.integers(0, 2, 512, dtype=np.uint16) << 15
    for i, value in enumerate(special):
        bits[2 * i:2 * i + 2] = value, value | 0x8000
    return bits.view(np.uint8)


def main():
    tensors = {}
    for index, kind in enumerate([*SCALES, Type.F16, Type.BF16]):
        rng = np.random.Generator(np.random.Philox(100 + index))
        if kind in SCALES:
            raw = blocks(rng, kind)
            value = dequantize(raw, kind).reshape(-1)
            assert np.isfinite(value).all()
        else:
            raw = halves(rng, kind)
            value = (raw.view(np.float16).astype(np.float32) if kind == Type.F16
                     else dequantize(raw, kind).reshape(-1))
            assert not np.isnan(value).any()
        tensors[f"{kind.name}.raw"] = raw.reshape(-1)
        tensors[f"{kind.name}.f32"] = value.astype(np.float32)
        print(f"{kind.name:7s} {raw.size:6d} bytes {value.size:6d} values")
    save(OUT, tensors, versions("gguf", "numpy"))
    print(f"{OUT.stat().st_size} bytes together")


if __name__ == "__main__":
    main()
