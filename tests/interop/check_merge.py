#!/usr/bin/env python3
"""Adapters that PEFT makes on the real model, run and merged by ist: PEFT's logits; the merged
folder in transformers, its tokenizer too; the merged GGUF in llama.cpp.

python check_merge.py [ADAPTER...]
"""

import warnings

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer

from common import *

PROMPT = "The old harbour is"
TEXTS = [PROMPT, "In 1984 there were 365 days,\n\n  and (so they say) one cat's ear.", "naïve  日本 😀"]
ADAPTERS = {
    "lora": dict(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"]),
    "rslora": dict(r=16, lora_alpha=8, use_rslora=True, target_modules="all-linear"),
    "patterns": dict(r=4, lora_alpha=32, target_modules=["q_proj", "k_proj", "up_proj"],
                     rank_pattern={r"layers\.1\d\..*q_proj": 12}, alpha_pattern={"k_proj": 12},
                     layers_to_transform=list(range(5, 25))),
    "dora": dict(r=8, lora_alpha=16, use_dora=True, target_modules=["q_proj", "k_proj", "o_proj"]),
}


def make(path, config, folder):
    """A PEFT adapter with random values on the dequantised model."""
    torch.manual_seed(7)
    model = get_peft_model(hf_model(path), LoraConfig(task_type="CAUSAL_LM", **config)).eval()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.copy_(torch.randn_like(weight) * 0.02)
        elif "magnitude" in name:
            weight.mul_(1 + 0.1 * torch.rand_like(weight))
    model.save_pretrained(folder)
    return model


def check_folder(checks, path, name, adapter, theirs, ids, folder):
    ist("merge", "-m", path, "--adapter", adapter, "-o", folder, "--type", "F32", "--shard-size",
        "200M", "-q")
    model = hf_model(folder)
    checks.at_most(f"{name}: merged folder in transformers against PEFT, logits, relative",
                   relative(hf_logits(model, ids), theirs), 1e-3)
    base = folder.with_name("base-hf")
    ist("merge", "-m", path, "-o", base, "--type", "F32", "--overwrite", "-q")
    again = folder.with_name("again-hf")
    ist("merge", "-m", base, "--adapter", adapter, "-o", again, "--overwrite", "-q")
    checks.at_most(f"{name}: folder merged into a folder, in transformers against PEFT, logits, "
                   "relative", relative(hf_logits(hf_model(again), ids), theirs), 1e-3)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    same = [tokenizer.encode(t, add_special_tokens=False) == i
            for t, i in zip(TEXTS, ist_ids(path, TEXTS))]
    checks.true(f"{name}: the folder's tokenizer gives ist's tokens", all(same), str(same))
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    checks.true(f"{name}: the folder has the chat template", "<|im_start|>user" in chat)
    for written in (folder, base, again):
        shutil.rmtree(written)


def check_gguf(checks, path, name, adapter, theirs, ids, folder):
    exact = folder / f"{name}.gguf"
    ist("merge", "-m", path, "--adapter", adapter, "-o", exact, "--type", "F32", "-q")
    checks.at_most(f"{name}: merged GGUF (F32) in ist against PEFT, logits, relative",
                   relative(ist_logits(exact, ids), theirs), 1e-3)
    llm = llama_model(exact)
    checks.at_most(f"{name}: merged GGUF (F32) in llama.cpp against PEFT, logits, relative",
                   relative(llama_logits(llm, ids), theirs), 1e-3)
    check_greedy(checks, f"{name}: merged, F32", [("", llm, 0.02)], exact)
    exact.unlink()


def main():
    warnings.filterwarnings("ignore")
    checks, path, folder = Checks(), model_path(), work_folder()
    ids = ist_ids(path, [PROMPT])[0]
    base = hf_logits(hf_model(path), ids)
    for name in sys.argv[1:] or ADAPTERS:
        config, adapter = ADAPTERS[name], folder / name
        theirs = hf_logits(make(path, config, adapter), ids)
        moved = relative(theirs, base)
        checks.true(f"{name}: the adapter does something", moved > 0.02, f"{moved:.3g}")
        checks.at_most(f"{name}: ist with the adapter against PEFT, logits, relative",
                       relative(ist_logits(path, ids, adapter), theirs), 1e-3)
        check_folder(checks, path, name, adapter, theirs, ids, folder / f"{name}-hf")
        check_gguf(checks, path, name, adapter, theirs, ids, folder)
    checks.done()


if __name__ == "__main__":
    main()
