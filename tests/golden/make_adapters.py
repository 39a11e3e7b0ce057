#!/usr/bin/env python3
"""Adapters on llama_tiny that Hugging Face PEFT wrote, and the logits it computes with them.

Writes adapters/: a PEFT directory each, and goldens.safetensors; README.md beside this file says
what is in them. Run: python make_adapters.py (after make_llama_tiny.py)
"""

import json
import os
import shutil
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from common import save, versions
from make_llama_tiny import VOCAB, make_model, segments

OUT = Path(__file__).parent / "adapters"
SHAPE = dict(vocab_size=len(VOCAB), hidden_size=24, intermediate_size=36, num_hidden_layers=4,
             num_attention_heads=4, num_key_value_heads=2,
             rope_parameters={"rope_type": "default", "rope_theta": 10000.0})

ADAPTERS = {
    "rslora": dict(r=4, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "down_proj"]),
    "patterns": dict(r=2, lora_alpha=4, target_modules=["q_proj", "k_proj", "up_proj"],
                     rank_pattern={"layers.1.self_attn.q_proj": 5, "up_proj": 3},
                     alpha_pattern={r"layers\.[13]\..*k_proj": 7.5}),
    "layers": dict(r=2, lora_alpha=4, target_modules=["v_proj", "gate_proj"],
                   layers_to_transform=[0, 3], exclude_modules=["layers.3.mlp.gate_proj"]),
    "regex": dict(r=2, lora_alpha=3, target_modules=r".*layers\.[02]\..*(o|down)_proj"),
    "dora": dict(r=3, lora_alpha=6, use_dora=True, target_modules=["q_proj", "k_proj", "o_proj"]),
    "embedding": dict(r=2, lora_alpha=4, target_modules=["embed_tokens", "v_proj"]),
    "head": dict(r=2, lora_alpha=4, target_modules=["lm_head", "up_proj"]),
    "saved": dict(r=2, lora_alpha=4, target_modules=["q_proj"], modules_to_save=["lm_head"]),
    "bf16": dict(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"]),
    "bias": dict(r=2, lora_alpha=3, lora_bias=True, target_modules=["q_proj", "o_proj", "up_proj"]),
}


def fill(model, seed):
    """Random values for all that the adapter brings."""
    rng = np.random.Generator(np.random.Philox(seed))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_magnitude" in name:
                weight.mul_(torch.from_numpy(rng.uniform(0.7, 1.3, weight.shape).astype(np.float32)))
            elif "lora_" in name or "modules_to_save" in name:
                value = rng.normal(0, 0.25, weight.shape).astype(np.float32)
                weight.copy_(torch.from_numpy(value))


def tidy(folder, config):
    """PEFT writes sets in random order, and a model card."""
    (folder / "README.md").unlink(missing_ok=True)
    file = folder / "adapter_config.json"
    written = json.loads(file.read_text())
    written["target_modules"] = config["target_modules"]
    file.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")


def make(name, config, seed, segs):
    folder = OUT / name
    model = make_model(1, True, **SHAPE)
    if name in ("head", "saved"):  # PEFT would change both sides of a tied pair
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        model.config.tie_word_embeddings = False
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **config))
    for c in model.peft_config.values():
        c.base_model_name_or_path = "llama_tiny"
    fill(model, seed)
    if name == "bf16":
        with torch.no_grad():
            for key, weight in model.named_parameters():
                if "lora_" in key:
                    weight.copy_(weight.bfloat16().float())
    model.eval().save_pretrained(folder)
    file = folder / "adapter_model.safetensors"
    if name == "bf16":
        tensors = {k: v.bfloat16() for k, v in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
    tidy(folder, config)
    with torch.no_grad():
        return torch.stack([model(s[None]).logits[0, -1] for s in segs]).numpy()


def main():
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    segs = segments(2, len(VOCAB))
    base = make_model(1, True, **SHAPE)
    with torch.no_grad():
        plain = torch.stack([base(s[None]).logits[0, -1] for s in segs]).numpy()
    tensors = {}
    for i, (name, config) in enumerate(ADAPTERS.items()):
        tensors[name] = make(name, config, 10 + i, segs)
        print(f"{name}: moves the logits by {np.abs(tensors[name] - plain).max():.2f} at most")
    save(OUT / "goldens.safetensors", tensors, versions("torch", "transformers", "peft", "numpy",
                                                        "safetensors"))
    files = sorted(p for p in OUT.rglob("*") if p.is_file())
    for path in files:
        print(f"{path.stat().st_size:8d} {path.relative_to(OUT)}")
    print(f"{sum(p.stat().st_size for p in files):8d} together")


if __name__ == "__main__":
    main()
