#!/usr/bin/env python3
"""Every method on llama_tiny: loss, logits and the gradients of all its tensors, in double.

LoRA, DoRA and prefix tuning are Hugging Face PEFT's own; bottlenecks and the DoRA whose dropout
leaves the gain alone, which PEFT lacks, are plain modules written here. Dropout takes the masks of
src/base/rng.h. Writes methods/; README.md beside this file says what is in it.
Run: python make_methods.py (after make_llama_tiny.py)
"""

import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from torch import nn

from common import save, versions
from make_adapters import SHAPE
from make_llama_tiny import MASK_FROM, make_model, segments

OUT = Path(__file__).parent / "methods"
SEED, STEP = 7, 3  # of the dropout's stream
OUTER = ["embed_tokens", "lm_head"]
ALL = ["q", "k", "v", "o", "gate", "up", "down"]
SITE = {"q": 0, "k": 0, "v": 0, "o": 1, "gate": 2, "up": 2, "down": 3}
LEAF = {m: ("self_attn." if SITE[m] < 2 else "mlp.") + m + "_proj" for m in ALL}
ACTS = {"relu": nn.ReLU(), "tanh": nn.Tanh(), "gelu": nn.GELU(), "silu": nn.SiLU()}

METHODS = {
    "lora": dict(method="lora", targets=ALL, rank=2, alpha=3, dropout=0.25),
    "rslora": dict(method="lora", targets=["q", "down"], rank=3, alpha=4, rslora=True),
    "lora_bias": dict(method="lora", targets=["k", "o", "gate"], rank=2, alpha=5, lora_bias=True,
                      dropout=0.25),
    "dora": dict(method="dora", targets=ALL, rank=2, alpha=4),
    "dora_shared": dict(method="dora", targets=["q", "o", "up", "down"], rank=2, alpha=3,
                        dropout=0.25),
    "dora_peft": dict(method="dora", targets=["q", "o", "up", "down"], rank=2, alpha=3,
                      dropout=0.25, dora_dropout="peft"),
    "parallel": dict(method="parallel", targets=ALL, rank=2, act="tanh", scaling=0.7,
                     dropout=0.25),
    "parallel_learned": dict(method="parallel", targets=["v", "down"], rank=3, act="gelu",
                             scaling=1.2, learned=True),
    "series": dict(method="series", targets=ALL, rank=2, act="silu", scaling=1.3, dropout=0.25),
    "series_learned": dict(method="series", targets=["gate", "up", "down"], rank=3, act="relu",
                           scaling=0.8, learned=True),
    "lora_outer": dict(method="lora", targets=["q", "up"], rank=2, alpha=3, dropout=0.25,
                       outer=True),
    "prefix": dict(method="prefix", targets=ALL, rank=3),
}


def philox(counter, key):
    c, k = [int(x) for x in counter], list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


class Dropout(nn.Module):
    """The mask of (step, layer, site, sample, position, channel)."""
    sample = 0  # of the segment that runs

    def __init__(self, p, layer, site):
        super().__init__()
        self.p, self.place, self.masks = p, layer << 8 | site, {}

    def mask(self, rows, cols):
        threshold = int(self.p * 65536 + 0.5)
        key = (SEED, 2 * 0x9E3779B9 & 0xFFFFFFFF)  # 2: the purpose "dropout"
        out = np.empty((rows, cols + 8))
        for r in range(rows):
            for block in range((cols + 7) // 8):
                words = philox((STEP, self.place, Dropout.sample, r << 12 | block), key)
                halves = [h for w in words for h in (w & 0xFFFF, w >> 16)]
                out[r, 8 * block:8 * block + 8] = [
                    0.0 if h < threshold else 65536 / (65536 - threshold) for h in halves]
        return torch.from_numpy(out[:, :cols].copy())

    def forward(self, x):
        if self.p == 0:
            return x
        at = (Dropout.sample, *x.shape[-2:])
        if at not in self.masks:
            self.masks[at] = self.mask(*x.shape[-2:])
        return x * self.masks[at]


class Bottleneck(nn.Module):
    def __init__(self, base, c, layer, module):
        super().__init__()
        self.base, self.c = base, c
        width = [base.in_features, base.out_features]
        self.where = "beside"
        if c["method"] == "series":
            self.where = "behind" if module in ("o", "down") else "front"
            width = [width[self.where == "behind"]] * 2
        self.A = nn.Parameter(torch.empty(c["rank"], width[0]))
        self.B = nn.Parameter(torch.empty(width[1], c["rank"]))
        self.learned = nn.Parameter(torch.full((1,), c["scaling"])) if c.get("learned") else None
        self.drop = Dropout(c.get("dropout", 0), layer, SITE[module])

    def h(self, x):
        scale = self.c["scaling"] if self.learned is None else self.learned
        return scale * (ACTS[self.c["act"]](self.drop(x) @ self.A.T) @ self.B.T)

    def forward(self, x):
        if self.where == "front":
            return self.base(x + self.h(x))
        y = self.base(x)
        return y + self.h(y if self.where == "behind" else x)


class SharedDora(nn.Module):
    """y = g (W x + s B A drop(x)), the norm a constant for the gradient."""

    def __init__(self, base, c, layer, module):
        super().__init__()
        self.base, self.scale = base, c["alpha"] / c["rank"]
        self.A = nn.Parameter(torch.empty(c["rank"], base.in_features))
        self.B = nn.Parameter(torch.empty(base.out_features, c["rank"]))
        self.m = nn.Parameter(base.weight.norm(dim=1).detach().clone())
        self.drop = Dropout(c["dropout"], layer, SITE[module])

    def forward(self, x):
        n = (self.base.weight + self.scale * self.B @ self.A).norm(dim=1).detach()
        low = self.scale * (self.drop(x) @ self.A.T) @ self.B.T
        return self.m / n * (self.base(x) + low)


def modules_of(model, c):
    inner = model
    while not hasattr(inner, "layers"):
        inner = inner.model
    for i, layer in enumerate(inner.layers):
        for m in c["targets"]:
            yield i, m, layer, LEAF[m]


def wrap(model, c, kind):
    """Plain modules in place of the linears: {name: parameter}."""
    params = {}
    for i, m, layer, leaf in modules_of(model, c):
        part, name = leaf.split(".")
        new = kind(layer.get_submodule(leaf), c, i, m)
        setattr(layer.get_submodule(part), name, new)
        for key, p in new.named_parameters(recurse=False):
            params[f"{i}.{m}.{key}"] = p
    return model, params


def wrap_peft(model, c):
    model = get_peft_model(model, LoraConfig(
        r=c["rank"], lora_alpha=c["alpha"], lora_dropout=c.get("dropout", 0),
        use_rslora=c.get("rslora", False), use_dora=c["method"] == "dora",
        lora_bias=c.get("lora_bias", False),
        target_modules=[m + "_proj" for m in c["targets"]] + OUTER * c.get("outer", False),
        task_type="CAUSAL_LM"))
    params = {}
    if c.get("outer"):
        head, embed = model.base_model.model.lm_head, model.base_model.model.model.embed_tokens
        head.lora_dropout["default"] = Dropout(c["dropout"], SHAPE["num_hidden_layers"], 0)
        params = {"head.A": head.lora_A["default"].weight, "head.B": head.lora_B["default"].weight,
                  "embed.A": embed.lora_embedding_A["default"],
                  "embed.B": embed.lora_embedding_B["default"]}
    for i, m, layer, leaf in modules_of(model, c):
        lin = layer.get_submodule(leaf)
        if c.get("dropout"):
            lin.lora_dropout["default"] = Dropout(c["dropout"], i, SITE[m])
        params[f"{i}.{m}.A"] = lin.lora_A["default"].weight
        params[f"{i}.{m}.B"] = lin.lora_B["default"].weight
        if c.get("lora_bias"):
            params[f"{i}.{m}.bias"] = lin.lora_B["default"].bias
        if c["method"] == "dora":
            params[f"{i}.{m}.m"] = lin.lora_magnitude_vector["default"].weight
    return model, params


def turned(rows, turn, config):
    """Keys (n, K E) in half-split order, each rotated by `turn` positions."""
    E, theta = config.head_dim, config.rope_parameters["rope_theta"]
    angle = turn * theta ** (-2 * np.arange(E // 2) / E)
    x = rows.reshape(len(rows), -1, 2, E // 2)
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = x[:, :, 0], x[:, :, 1]
    return np.stack([a * cos - b * sin, a * sin + b * cos], 2).reshape(rows.shape)


def prefix_tensors(model, values, config):
    """PEFT has one tensor (n, L 2 K E) whose keys are seen from n positions farther."""
    n = len(values)
    parts = values.reshape(n, config.num_hidden_layers, 2, -1)
    return {f"{i}.{name}": turned(parts[:, i, j], -n, config) if name == "key" else parts[:, i, j]
            for i in range(config.num_hidden_layers) for j, name in enumerate(["key", "value"])}


def fill(params, rng):
    with torch.no_grad():
        for name, p in params.items():
            kind = name.split(".")[-1]
            if kind == "m":
                value = p.numpy() * rng.uniform(0.7, 1.3, p.shape)
            elif kind == "learned":
                value = p.numpy() * rng.uniform(0.5, 1.5, p.shape)
            else:
                value = rng.normal(0, 0.3 if kind == "A" else 0.25, p.shape)
            p.copy_(torch.from_numpy(value.astype(np.float32)))


def run(model, segs):
    """Mean loss over the supervised tokens, with the last row of logits of each segment."""
    losses, last = [], []
    for i, (seg, first) in enumerate(zip(segs, MASK_FROM)):
        Dropout.sample = i
        logits = model(input_ids=seg[None]).logits[0]
        losses.append(nn.functional.cross_entropy(logits[first - 1:-1], seg[first:],
                                                  reduction="none"))
        last.append(logits[-1])
    return torch.cat(losses).mean(), torch.stack(last)


def make(name, c, segs, number):
    model = make_model(1, True, **SHAPE).double().train()
    config = model.config
    if c.get("outer"):  # the same model, untied: PEFT warns of tied ones
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
        config.tie_word_embeddings = False
        model.model.embed_tokens.padding_idx = None  # whose row torch does not train
    for p in model.parameters():
        p.requires_grad_(False)
    if c["method"] == "prefix":
        model = get_peft_model(model, PrefixTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=c["rank"])).double()
        params = {"prefix": model.prompt_encoder["default"].embedding.weight}
    elif c["method"] in ("parallel", "series"):
        model, params = wrap(model, c, Bottleneck)
    elif name == "dora_shared":
        model, params = wrap(model, c, SharedDora)
    else:
        model, params = wrap_peft(model, c)
    model.double().train()
    fill(params, np.random.Generator(np.random.Philox(100 + number)))
    loss, last = run(model, segs)
    loss.backward()
    if c.get("outer"):  # ist drops before the head's adapter where there is a loss only
        model.base_model.model.lm_head.lora_dropout["default"] = nn.Identity()
        last = run(model, segs)[1]
    values = {k: p.detach().numpy() for k, p in params.items()}
    grads = {k: p.grad.numpy() for k, p in params.items()}
    if c["method"] == "prefix":
        values = prefix_tensors(model, values["prefix"], config)
        grads = prefix_tensors(model, grads["prefix"], config)
    tensors = {"logits_last": last.detach().numpy()}
    tensors |= values | {"grad." + k: v for k, v in grads.items()}
    tensors = {k: v.astype(np.float32) for k, v in tensors.items()}
    meta = versions("torch", "transformers", "peft", "numpy", "safetensors")
    meta |= {"loss": repr(loss.item()), "targets": ",".join(c["targets"])}
    meta |= {k: (v if isinstance(v, str) else repr(v)) for k, v in c.items() if k != "targets"}
    save(OUT / f"{name}.safetensors", tensors, meta)
    print(f"{name:18s} loss {loss.item():.6f}, {sum(v.size for v in values.values())} parameters")


def main():
    OUT.mkdir(exist_ok=True)
    segs = segments(2, SHAPE["vocab_size"])
    for number, (name, c) in enumerate(METHODS.items()):
        make(name, c, segs, number)


if __name__ == "__main__":
    main()
