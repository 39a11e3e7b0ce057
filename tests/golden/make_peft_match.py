#!/usr/bin/env python3
"""What PEFT answers about module paths: which are targets, with which rank and alpha.

Writes peft_match.json: for every config the paths that are targets, each with r and alpha.
Run: python make_peft_match.py
"""

import json
from pathlib import Path

import peft
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

LAYERS = (0, 1, 2, 3, 10, 12)
ATTENTION, MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
PATHS = ([f"model.layers.{n}.self_attn.{m}" for n in LAYERS for m in ATTENTION] +
         [f"model.layers.{n}.mlp.{m}" for n in LAYERS for m in MLP] +
         [f"transformer.h.{n}.{m}" for n in LAYERS for m in ("attn.c_attn", "attn.c_proj", "mlp.c_proj")] +
         ["model.embed_tokens", "lm_head", "transformer.wte"])

CONFIGS = [
    dict(target_modules=["q_proj", "v_proj"]),
    dict(target_modules=["proj"]),
    dict(target_modules=["self_attn.q_proj", "mlp.down_proj", "c_proj"]),
    dict(target_modules=["attn.c_proj", "lm_head", "embed_tokens"]),
    dict(target_modules=["model.layers.1.mlp.up_proj", "layers.12.self_attn.k_proj"]),
    dict(target_modules=["1.self_attn.q_proj"]),
    dict(target_modules=["q_proj", "c_attn"], layers_to_transform=[1, 10]),
    dict(target_modules=["q_proj", "c_attn"], layers_to_transform=[1, 10], layers_pattern="layers"),
    dict(target_modules=["q_proj", "c_attn"], layers_to_transform=[0, 3], layers_pattern=["h"]),
    dict(target_modules=["q_proj", "c_attn", "lm_head", "model.layers.2.mlp.up_proj"],
         layers_to_transform=3, layers_pattern=["blocks", "lay.*"]),
    dict(target_modules=r".*\.(q|k)_proj"),
    dict(target_modules=r"q_proj"),
    dict(target_modules=r".*layers\.(1|3|10)\..*_proj"),
    dict(target_modules=r"model\.layers\.(?:[0-2]|1\d)\.self_attn\.[qkv]_proj"),
    dict(target_modules=r"^.*mlp.*$"),
    dict(target_modules=r".*(?<!self_attn)\.(up|down)_proj"),
    dict(target_modules=r"(?!.*\.1\.).*_proj"),
    dict(target_modules=r"(?i).*Q_PROJ"),
    dict(target_modules=r"model.layers.\d.mlp.(gate|up)_proj|lm_head"),
    dict(target_modules=r".*\.\w{6}", exclude_modules=["k_proj"]),
    dict(target_modules=r".*\.\d{2}\..*proj", exclude_modules=r".*\.12\..*"),
    dict(target_modules=["q_proj", "up_proj"], exclude_modules=["layers.1.self_attn.q_proj", "mlp"]),
    dict(target_modules=["q_proj", "up_proj"], exclude_modules=r".*layers\.\d\..*"),
    dict(target_modules=["q_proj", "k_proj"], rank_pattern={"q_proj": 4, "layers.1.self_attn.k_proj": 2},
         alpha_pattern={"k_proj": 3}),
    dict(target_modules=["q_proj", "k_proj"], rank_pattern={r"^model\.layers\.[0-2]\..*": 5,
         r"layers\.1\..*": 7, "q_proj": 9}, alpha_pattern={r".*\.(q|k)_proj": 1.5, "q_proj": 64}),
    dict(target_modules=["q_proj", "o_proj"], rank_pattern={"self_attn.*": 3, "proj": 99},
         alpha_pattern={"1.self_attn.o_proj": 11, r"1\d\.self_attn\.o_proj": 12}),
    dict(target_modules=["q_proj", "lm_head"], rank_pattern={"lm_head": 2, r".*\.1[02]\..*": 6}),
    dict(target_modules=["q_proj"], modules_to_save=["lm_head"]),
    dict(target_modules=r".*", modules_to_save=["lm_head", "embed_tokens"]),
]


def answer(config):
    c = LoraConfig(r=8, lora_alpha=16, **config)
    found = {}
    for path in PATHS:
        if not check_target_module_exists(c, path):
            continue
        rank = c.rank_pattern.get(get_pattern_key(c.rank_pattern.keys(), path), c.r)
        alpha = c.alpha_pattern.get(get_pattern_key(c.alpha_pattern.keys(), path), c.lora_alpha)
        found[path] = [rank, alpha]
    return dict(config=config, found=found)


def main():
    out = dict(peft=peft.__version__, paths=PATHS, cases=[answer(c) for c in CONFIGS])
    path = Path(__file__).parent / "peft_match.json"
    rows = ",\n".join(json.dumps(c) for c in out["cases"])
    path.write_text('{"peft": "%s", "paths": %s,\n"cases": [\n%s\n]}\n'
                    % (out["peft"], json.dumps(PATHS), rows))
    print(f"{len(out['cases'])} configs, {sum(len(c['found']) for c in out['cases'])} targets")


if __name__ == "__main__":
    main()
