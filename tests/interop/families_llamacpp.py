#!/usr/bin/env python3
"""The tiny GGUFs of tests/golden/families in llama.cpp, against transformers' logits.

Run by hand: python families_llamacpp.py. Needs llama-cpp-python, numpy, safetensors.
GELU families differ by up to 1e-2: llama.cpp takes GELU from a table of half precision.
"""

import ctypes
import sys
from pathlib import Path

import llama_cpp as C
import numpy as np
from safetensors.numpy import load_file

FAMILIES = Path(__file__).parent.parent / "golden" / "families"
EXACT = 8e-3  # with F16 matrices llama.cpp rounds what they multiply to F16
GELU = 2e-2


def logits_of(model, tokens):
    params = C.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_threads = 64, 64, 1
    params.type_k = params.type_v = 0  # F32
    context = C.llama_init_from_model(model, params)
    batch = C.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i] = int(token), i
        batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, 1
    assert C.llama_decode(context, batch) == 0
    V = C.llama_vocab_n_tokens(C.llama_model_get_vocab(model))
    out = np.array([np.ctypeslib.as_array(C.llama_get_logits_ith(context, i), (V,)).copy()
                    for i in range(len(tokens))])
    C.llama_batch_free(batch)
    C.llama_free(context)
    return out


def check(folder):
    golden = load_file(folder / "goldens.safetensors")
    params = C.llama_model_default_params()
    model = C.llama_model_load_from_file(str(folder / "model.gguf").encode(), params)
    if not model:
        print(f"{folder.name:16} llama.cpp does not load it")
        return False
    starts, worst = golden["segment_starts"], 0.0
    for a, b in zip(starts[:-1], starts[1:]):
        if folder.name == "phi3" and b - a <= 8:
            continue  # llama.cpp chooses the factors by the context, transformers by the length
        ours = logits_of(model, golden["tokens"][a:b])
        worst = max(worst, float(np.abs(ours - golden["logits"][a:b]).max()))
    C.llama_model_free(model)
    scale = float(np.abs(golden["logits"]).max())
    gelu = folder.name.startswith(("gemma", "gpt", "bloom"))
    good = worst <= scale * (GELU if gelu else EXACT)
    print(f"{folder.name:16} largest difference {worst / scale:.1e} of {scale:.2f}"
          f"{'' if good else '  TOO LARGE'}")
    return good


def main():
    quiet = C.llama_log_callback(lambda level, text, data: None)
    C.llama_log_set(quiet, ctypes.c_void_p(0))
    C.llama_backend_init()
    names = sys.argv[1:] or sorted(p.parent.name for p in FAMILIES.glob("*/model.gguf"))
    results = [check(FAMILIES / name) for name in names]
    print(f"{sum(results)} of {len(results)} agree")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
