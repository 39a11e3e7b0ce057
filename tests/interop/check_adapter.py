#!/usr/bin/env python3
"""Adapters trained by ist on the real model, of every linear method: PEFT loads each and gives the
same loss and logits; llama.cpp loads adapter.gguf on the same base and writes what `ist generate`
writes; merged, they give PEFT's logits in transformers (a folder), in ist (F32), and llama.cpp
writes what `ist generate` writes from the merged GGUF in its own types, Q8_0 and Q4_K.

python check_adapter.py [METHOD...]
"""

import json

from peft import PeftModel

from common import *
from records import records

PROMPT = "The old harbour is"
METHODS = {
    "lora": ["--rank", 8],
    "rslora": ["--rank", 16, "--alpha", 8, "--rslora", "--targets", "all-linear"],
    "patterns": ["--rank", 4, "--targets", "q_proj,k_proj,up_proj", "--rank-pattern",
                 r"layers\.1\d\..*q_proj=12", "--alpha-pattern", "k_proj=3",
                 "--layers-to-transform", "5-24"],
    "dora": ["--method", "dora", "--rank", 8, "--targets", "q_proj,k_proj,o_proj,down_proj"],
}
OWN_GGUF = ("lora", "rslora", "patterns")  # llama.cpp's adapters cannot hold DoRA
LIMITS = {None: 0.5, "Q8_0": 0.5, "Q4_K": 1.0}


def write_data(folder):
    data = folder / "data.jsonl"
    parts = [f"{r['instruction']} {r['output']}" for r in records(48)]
    texts = [" ".join(parts[i:i + 4]) for i in range(0, len(parts), 4)]
    data.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    return texts, data


def check_peft(checks, name, path, data, out, samples):
    """PEFT's logits on the first sample."""
    base = hf_model(path)
    before = hf_loss(base, samples)
    hf = PeftModel.from_pretrained(base, str(out)).eval()
    ours, theirs = ist_loss(path, data, out), hf_loss(hf, samples)
    checks.true(f"{name}: tokens", ours["tokens"] == sum(map(len, samples)), str(ours["tokens"]))
    checks.true(f"{name}: the adapter does something", before - theirs > 0.1,
                f"loss {before:.4f} before, {theirs:.4f} with it")
    checks.at_most(f"{name}: loss {ours['loss']:.6f} against PEFT {theirs:.6f}",
                   abs(ours["loss"] - theirs), 1e-3)
    logits = hf_logits(hf, samples[0])
    checks.at_most(f"{name}: logits against PEFT, relative",
                   relative(ist_logits(path, samples[0], out), logits), 1e-3)
    return logits


def check_llama(checks, name, path, plain, out, sample, ids):
    """On the base itself, and on the base in F32, where llama.cpp rounds next to nothing."""
    if name not in OWN_GGUF:
        checks.true(f"{name}: no adapter.gguf", not (out / "adapter.gguf").exists())
        return
    llm = llama_model(path, out / "adapter.gguf")
    theirs = llama_logits(llm, sample)
    checks.true(f"{name}: llama.cpp: the adapter changes the logits",
                relative(theirs, llama_logits(llama_model(path), sample)) > 0.02)
    checks.at_most(f"{name}: logits against llama.cpp with adapter.gguf, relative",
                   relative(ist_logits(path, sample, out), theirs), 0.1)
    check_greedy(checks, f"{name}: llama.cpp with adapter.gguf", llm, ids, path, PROMPT, 50, out)
    llm = llama_model(plain, out / "adapter.gguf")
    checks.at_most(f"{name}: logits against llama.cpp with adapter.gguf on the base in F32, root "
                   "mean square", rms(ist_logits(path, sample, out), llama_logits(llm, sample)),
                   0.01)
    check_greedy(checks, f"{name}: llama.cpp with adapter.gguf on the base in F32", llm, ids, plain,
                 PROMPT, 50, out, limit=0.02)


def check_merged(checks, name, path, out, sample, ids, theirs, folder):
    hf, exact = folder / f"{name}-hf", folder / f"{name}.gguf"
    ist("merge", "-m", path, "--adapter", out, "-o", hf, "--type", "F32", "-q")
    checks.at_most(f"{name}: merged folder in transformers against PEFT, logits, relative",
                   relative(hf_logits(hf_model(hf), sample), theirs), 1e-3)
    shutil.rmtree(hf)
    ist("merge", "-m", path, "--adapter", out, "-o", exact, "--type", "F32", "-q")
    checks.at_most(f"{name}: merged GGUF (F32) in ist against PEFT, logits, relative",
                   relative(ist_logits(exact, sample), theirs), 1e-3)
    exact.unlink()
    for kind, limit in LIMITS.items():
        merged = folder / f"{name}-{kind}.gguf"
        ist("merge", "-m", path, "--adapter", out, "-o", merged, "-q",
            *(["--type", kind] if kind else []))
        check_greedy(checks, f"{name}: merged GGUF ({kind or 'own types'}) in llama.cpp",
                     llama_model(merged), ids, merged, PROMPT, 50, limit=limit)
        merged.unlink()


def main():
    checks, path, folder = Checks(), model_path(), work_folder()
    texts, data = write_data(folder)
    eos = hf_model(path).config.eos_token_id
    samples = [ids + [eos] for ids in ist_ids(path, texts)]
    ids = ist_ids(path, [PROMPT])[0]
    plain = folder / "base-F32.gguf"
    ist("merge", "-m", path, "-o", plain, "--type", "F32", "-q")
    for name in sys.argv[1:] or METHODS:
        out = folder / name
        ist("train", "-m", path, "-d", data, "-o", out, "--compute", "f32", "--steps", 6, "--batch",
            4, "--lr", 2e-3, "--warmup", 0, "--valid-examples", 0, "--selector", "random",
            "--redraw-every", 1, "-q", *METHODS[name])
        theirs = check_peft(checks, name, path, data, out, samples)
        check_llama(checks, name, path, plain, out, samples[0], ids)
        check_merged(checks, name, path, out, samples[0], ids, theirs, folder)
    checks.done()


if __name__ == "__main__":
    main()
