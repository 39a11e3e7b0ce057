#!/usr/bin/env python3
"""An adapter trained by ist on the real model: PEFT loads it and gives the same loss and logits,
llama.cpp loads adapter.gguf on the same base and writes what `ist generate` writes."""

import json

from peft import PeftModel

from common import *
from records import records

PROMPT = "The old harbour is"


def train(path, folder):
    data = folder / "data.jsonl"
    parts = [f"{r['instruction']} {r['output']}" for r in records(96)]
    texts = [" ".join(parts[i:i + 4]) for i in range(0, len(parts), 4)]
    data.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    out = folder / "run"
    ist("train", "-m", path, "-d", data, "-o", out, "--steps", 9, "--batch", 6, "--lr", 1e-3,
        "--rank", 8, "--warmup", 0, "--valid-examples", 0, "--probe-every", 5, "--probe-batch", 4,
        "-q")
    return texts, data, out


def main():
    checks, path, folder = Checks(), model_path(), work_folder()
    texts, data, out = train(path, folder)
    base = hf_model(path)
    eos = base.config.eos_token_id
    samples = [ids + [eos] for ids in ist_ids(path, texts)]
    before = hf_loss(base, samples)
    hf = PeftModel.from_pretrained(base, str(out)).eval()
    ours, theirs = ist_loss(path, data, out), hf_loss(hf, samples)
    checks.true("tokens", ours["tokens"] == sum(map(len, samples)), str(ours["tokens"]))
    checks.true("the adapter does something", before - theirs > 0.1,
                f"loss {before:.4f} before, {theirs:.4f} with it")
    checks.at_most(f"loss {ours['loss']:.6f} against PEFT {theirs:.6f}",
                   abs(ours["loss"] - theirs), 1e-3)
    ids = ist_ids(path, [PROMPT])[0]
    checks.at_most("logits against PEFT, relative",
                   relative(ist_logits(path, samples[0], out), hf_logits(hf, samples[0])), 1e-3)
    llm = llama_model(path, out / "adapter.gguf")
    checks.true("llama.cpp: the adapter changes the logits",
                relative(llama_logits(llm, samples[0]), llama_logits(llama_model(path), samples[0]))
                > 0.05)
    checks.at_most("logits against llama.cpp, relative",
                   relative(ist_logits(path, samples[0], out), llama_logits(llm, samples[0])), 0.1)
    check_greedy(checks, "llama.cpp", llm, ids, path, PROMPT, 50, out)
    checks.done()


if __name__ == "__main__":
    main()
