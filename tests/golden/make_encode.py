#!/usr/bin/env python3
"""Makes encode_blocks.safetensors: f32 values ("x") and, for every type that ist
writes, the bytes that libggml makes of them ("<TYPE>.raw").

    pip install numpy safetensors gguf llama-cpp-python
    python3 tests/golden/make_encode.py

libggml is the one inside llama-cpp-python. The `gguf` package encodes the types of
32 elements once more, as a second opinion.
"""

import ctypes
import pathlib

import gguf
import llama_cpp
import numpy as np
from common import save, versions

TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]


def values():
    """Rows of 256 that reach the corners of the encoders."""
    rng = np.random.default_rng(20240)
    plain = rng.standard_normal((12, 256))
    rows = [
        plain[0] * 0.02,
        plain[1] * 3,
        plain[2] * np.exp(rng.uniform(-4, 4, 256)),  # outliers
        np.abs(plain[3]),  # no negative value: minimum 0 in Q4_K, not in Q4_1
        -np.abs(plain[4]) - 0.5,
        np.full(256, 0.7),
        np.zeros(256),
        np.round(plain[5] * 4) / 4,  # ties
        np.where(np.arange(256) % 64 < 32, 0, plain[6]),  # groups of zeros
        plain[7] * 1e-17,  # below the threshold of Q6_K
        plain[8] * np.repeat(10.0 ** rng.uniform(-6, 2, 8), 32),  # groups of unlike size
        np.clip(plain[9] * 2, -1, 1),  # the extreme value many times, both signs
        plain[10] + 5,
        np.repeat(plain[11, :16], 16),
    ]
    return np.stack(rows).astype(np.float32)


def ggml_encoder():
    folder = pathlib.Path(llama_cpp.__file__).parent / "lib"
    ggml = ctypes.CDLL(str(folder / "libggml-base.so"))
    fn = ggml.ggml_quantize_chunk
    fn.restype = ctypes.c_size_t
    p, n = ctypes.c_void_p, ctypes.c_int64
    fn.argtypes = [ctypes.c_int, p, p, n, n, n, p]

    def encode(x, name):
        kind = gguf.GGMLQuantizationType[name]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        out = np.zeros(x.size // block * size, np.uint8)
        written = fn(int(kind), x.ctypes.data, out.ctypes.data, 0, x.shape[0], x.shape[1], None)
        assert written == out.size
        return out

    return encode


def main():
    x, encode = values(), ggml_encoder()
    tensors = {"x": x.reshape(-1)}
    for name in TYPES:
        raw = x.view(np.uint8).reshape(-1) if name == "F32" else encode(x, name)
        if not name.endswith("_K") and name != "F32":
            other = gguf.quants.quantize(x, gguf.GGMLQuantizationType[name]).view(np.uint8)
            differs = int((other.reshape(-1) != raw).sum())
            assert differs == 0, f"{name}: {differs} bytes differ between libggml and gguf"
        tensors[f"{name}.raw"] = raw
    meta = versions("numpy", "gguf", "llama-cpp-python")
    save(pathlib.Path(__file__).parent / "encode_blocks.safetensors", tensors, meta)


if __name__ == "__main__":
    main()
