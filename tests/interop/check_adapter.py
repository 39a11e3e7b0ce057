#!/usr/bin/env python3
"""Adapters trained by ist on the real model, of every linear method: PEFT loads each and gives the
same loss and logits; llama.cpp loads adapter.gguf on the same base and writes what `ist generate`
writes; merged, they give PEFT's logits in transformers (a folder), in ist (F32), and llama.cpp
writes what `ist generate` writes from the merged GGUF in F32, its own types, Q8_0 and Q4_K: the file
itself, whose products llama.cpp rounds, and its weights in F32, where both compute the same.

python check_adapter.py [METHOD...]
"""

import json

from peft import PeftModel

from common import *
from records import records

METHODS = {
    "lora": ["--rank", 8],
    "rslora": ["--rank", 16, "--alpha", 8, "--rslora", "--targets", "all-linear"],
    "patterns": ["--rank", 4, "--targets", "q_proj,k_proj,up_proj", "--rank-pattern",
                 r"layers\.1\d\..*q_proj=12", "--alpha-pattern", "k_proj=3",
                 "--layers-to-transform", "5-24"],
    "dora": ["--method", "dora", "--rank", 8, "--targets", "q_proj,k_proj,o_proj,down_proj"],
}
OWN_GGUF = ("lora", "rslora", "patterns")  # llama.cpp's adapters cannot hold DoRA
LIMITS = {"F32": 0.02, "Q8_0": 0.5, None: 0.5, "Q4_K": 1.0}


def write_data(folder):
    data = folder / "data.jsonl"
    parts = [f"{r['instruction']} {r['output']}" for r in records(72)]
    texts = [" ".join(parts[i:i + 6]) for i in range(0, len(parts), 6)]
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


def check_llama(checks, name, path, plain, out, sample):
    """On the base itself, and on the base in F32, where llama.cpp rounds nothing."""
    if name not in OWN_GGUF:
        checks.true(f"{name}: no adapter.gguf", not (out / "adapter.gguf").exists())
        return
    llm, exact = (llama_model(p, out / "adapter.gguf") for p in (path, plain))
    theirs, ours = llama_logits(llm, sample), ist_logits(path, sample, out)
    checks.true(f"{name}: llama.cpp: the adapter changes the logits",
                relative(theirs, llama_logits(llama_model(path), sample)) > 0.02)
    checks.at_most(f"{name}: logits against llama.cpp with adapter.gguf, relative",
                   relative(ours, theirs), 0.1)
    checks.at_most(f"{name}: logits against llama.cpp with adapter.gguf on the base in F32, relative",
                   relative(ours, llama_logits(exact, sample)), 1e-3)
    check_greedy(checks, f"{name}: adapter.gguf",
                 [(" on the base", llm, 0.5), (" on the base in F32", exact, 0.02)], path, out)


def check_merged(checks, name, path, out, sample, theirs, folder):
    hf = folder / f"{name}-hf"
    ist("merge", "-m", path, "--adapter", out, "-o", hf, "--type", "F32", "-q")
    checks.at_most(f"{name}: merged folder in transformers against PEFT, logits, relative",
                   relative(hf_logits(hf_model(hf), sample), theirs), 1e-3)
    shutil.rmtree(hf)
    for kind, limit in LIMITS.items():
        merged, copy = folder / f"{name}-{kind}.gguf", folder / f"{name}-copy.gguf"
        ist("merge", "-m", path, "--adapter", out, "-o", merged, "-q",
            *(["--type", kind] if kind else []))
        readers = [("", llama_model(merged), limit)]
        if kind == "F32":
            checks.at_most(f"{name}: merged GGUF (F32) in ist against PEFT, logits, relative",
                           relative(ist_logits(merged, sample), theirs), 1e-3)
        else:
            ist("merge", "-m", merged, "-o", copy, "--type", "F32", "--overwrite", "-q")
            readers.append((", its weights in F32", llama_model(copy), 0.02))
        check_greedy(checks, f"{name}: merged, {kind or 'own types'}", readers, merged)
        merged.unlink()


def main():
    checks, path, folder = Checks(), model_path(), work_folder()
    texts, data = write_data(folder)
    eos = hf_model(path).config.eos_token_id
    samples = [ids + [eos] for ids in ist_ids(path, texts)]
    plain = folder / "base-F32.gguf"
    ist("merge", "-m", path, "-o", plain, "--type", "F32", "-q")
    for name in sys.argv[1:] or METHODS:
        out = folder / name
        ist("train", "-m", path, "-d", data, "-o", out, "--compute", "f32", "--steps", 6, "--batch",
            4, "--lr", 2e-3, "--warmup", 0, "--valid-examples", 0, "--selector", "random",
            "--redraw-every", 1, "-q", *METHODS[name])
        theirs = check_peft(checks, name, path, data, out, samples)
        check_llama(checks, name, path, plain, out, samples[0])
        check_merged(checks, name, path, out, samples[0], theirs, folder)
    checks.done()


if __name__ == "__main__":
    main()
