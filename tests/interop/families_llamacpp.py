#!/usr/bin/env python3
"""The tiny GGUFs of tests/golden/families in llama.cpp, against transformers' logits.

Run by hand: python families_llamacpp.py. Needs llama-cpp-python, gguf, numpy, safetensors.

With F16 matrices llama.cpp rounds what they multiply to F16 too, and its flash attention works in
F16 (6e-3 of the largest logit together), so
it gets copies in F32 and plain attention. GELU it takes from a table of half precision.
"""

import ctypes
import sys
import tempfile
from pathlib import Path

import gguf
import llama_cpp as C
import numpy as np
from safetensors.numpy import load_file

FAMILIES = Path(__file__).parent.parent / "golden" / "families"
EXACT = 1e-5
GELU = 1e-3


def f32_copy(path, folder):
    """The same file with every tensor in F32."""
    reader, out = gguf.GGUFReader(path), Path(folder) / "f32.gguf"
    arch = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(out, arch)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        more = [field.types[-1]] if len(field.types) > 1 else []
        writer.add_key_value(name, field.contents(), field.types[0], *more)
    for t in reader.tensors:
        writer.add_tensor(t.name, np.ascontiguousarray(t.data.astype(np.float32)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def open_model(path):
    return C.llama_model_load_from_file(str(path).encode(), C.llama_model_default_params())


def logits_of(model, tokens, lora=None):
    params = C.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_threads = 64, 64, 1
    params.type_k = params.type_v = 0  # F32
    params.flash_attn_type = 0  # it works in F16
    context = C.llama_init_from_model(model, params)
    if lora:
        adapter = C.llama_adapter_lora_init(model, str(lora).encode())
        assert adapter, lora
        adapters = (C.llama_adapter_lora_p_ctypes * 1)(adapter)
        assert C.llama_set_adapters_lora(context, adapters, 1, (ctypes.c_float * 1)(1.0)) == 0
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
    with tempfile.TemporaryDirectory() as temp:
        model = open_model(f32_copy(folder / "model.gguf", temp))
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


quiet = C.llama_log_callback(lambda level, text, data: None)
C.llama_log_set(quiet, ctypes.c_void_p(0))
C.llama_backend_init()


def main():
    names = sys.argv[1:] or sorted(p.parent.name for p in FAMILIES.glob("*/model.gguf"))
    results = [check(FAMILIES / name) for name in names]
    print(f"{sum(results)} of {len(results)} agree")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
