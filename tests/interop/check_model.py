#!/usr/bin/env python3
"""The real model, untouched: logits against llama.cpp and Hugging Face, the loss of the first
training batches with the paper's prompt against Hugging Face's. `--data FILE` takes records of
your own (instruction, input, output)."""

import argparse
import json

import numpy as np

from common import *
from records import paper_text, records

PROMPTS = [
    "The capital of France is",
    "Water boils at 100 degrees Celsius because",
    "def fibonacci(n):\n    ",
]
BATCH, BATCHES = 16, 2


def check_logits(checks, path, hf, llm):
    for prompt in PROMPTS:
        ids = ist_ids(path, [prompt])[0]
        ours, theirs, cpp = ist_logits(path, ids), hf_logits(hf, ids), llama_logits(llm, ids)
        checks.at_most(f"{prompt!r}: logits, ist f32 against HF f32",
                       float(np.abs(ours - theirs).max()), 2e-2)
        best, best_cpp = np.argsort(-ours[-1])[:5], np.argsort(-cpp[-1])[:5]
        print(f"     five best: ist {[(int(i), round(float(ours[-1, i]), 2)) for i in best]}, "
              f"llama.cpp {[(int(i), round(float(cpp[-1, i]), 2)) for i in best_cpp]}")
        # llama.cpp rounds activations to 8 bits before a product with quantised weights, HF and
        # ist do not; so no order is asked of near ties.
        checks.at_most(f"{prompt!r}: five best of llama.cpp, ist against llama.cpp",
                       float(np.abs(ours[-1, best_cpp] - cpp[-1, best_cpp]).max()), 0.5)
        checks.at_most(f"{prompt!r}: all logits, ist against llama.cpp, root mean square",
                       rms(ours, cpp), 0.08)
        checks.true(f"{prompt!r}: likeliest token", best[0] == best_cpp[0], str(int(best[0])))
        bf16 = ist_logits(path, ids, compute="bf16")
        checks.at_most(f"{prompt!r}: all logits, ist bf16 against HF f32, root mean square",
                       rms(bf16, theirs), 0.05)


def check_losses(checks, path, hf, data, folder):
    """Training's own loss at step 1 (B = 0: the base model), a file of one batch each."""
    eos = hf.config.eos_token_id
    for b in range(BATCHES):
        batch = data[b * BATCH:(b + 1) * BATCH]
        file = folder / f"batch{b}.jsonl"
        file.write_text("".join(json.dumps(r) + "\n" for r in batch))
        ids = [x[:256] if len(x) >= 256 else x + [eos]
               for x in ist_ids(path, [paper_text(r) for r in batch])]
        expected = hf_loss(hf, ids)
        for compute in ("f32", "bf16"):
            out = folder / f"run{b}{compute}"
            ist("train", "-m", path, "-d", file, "-o", out, "--preset", "paper", "--steps", 1,
                "--valid-examples", 0, "--compute", compute, "-q")
            step = [json.loads(x) for x in (out / "metrics.jsonl").read_text().splitlines()]
            step = [x for x in step if "tokens" in x][0]
            checks.true(f"batch {b} {compute}: tokens", step["tokens"] == sum(map(len, ids)),
                        str(step["tokens"]))
            checks.at_most(f"batch {b} {compute}: loss {step['loss']:.5f} against HF "
                           f"{expected:.5f}, relative", abs(step["loss"] / expected - 1), 0.01)


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--data")
    data = args.parse_args().data
    data = json.load(open(data)) if data else records(BATCH * BATCHES)
    checks, path = Checks(), model_path()
    hf, llm = hf_model(path), llama_model(path)
    check_logits(checks, path, hf, llm)
    check_losses(checks, path, hf, data, work_folder())
    checks.done()


if __name__ == "__main__":
    main()
