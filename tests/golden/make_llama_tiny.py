#!/usr/bin/env python3
"""Tiny Llama-shaped models with what Hugging Face transformers and PEFT make of them.

Writes llama_tiny/: see README.md beside this file for the names of all tensors.
Run: python make_llama_tiny.py
"""

import json
import math
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import gguf
import numpy as np
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from transformers import LlamaConfig, LlamaForCausalLM

from common import add_tokenizer, byte_alphabet, finish, permute, save, versions

OUT = Path(__file__).parent / "llama_tiny"
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RANK, ALPHA = 4, 8
LENGTHS = [3, 17, 6, 4, 9]
# First supervised token of each segment: 1 = all but the first, else a completion.
MASK_FROM = [1, 11, 1, 2, 5]
LR, BETAS, EPS, CLIP = 1e-2, (0.9, 0.999), 1e-8, 1.0
# Ten steps: the layers that train and the two segments of the batch.
ACTIVE = [[1], [0, 3], [2], [1, 3], [3], [0, 2], [1], [1, 2], [0], [0, 3]]
BATCHES = [[0, 1], [2, 3], [4, 0], [1, 2], [3, 4], [1, 4], [0, 2], [1, 3], [2, 4], [0, 1]]
ACTIVE_GRADS, SUPPRESSED, FACTOR = [1, 3], [0, 2], 0.25

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ t", "h e", "Ġt he", "i n", "e r", "Ġ a", "o n", "Ġa n", "Ġan d", "r e", "in g",
          "0 0", "Ċ Ċ"]
VOCAB = SPECIALS + byte_alphabet() + [m.replace(" ", "") for m in MERGES]


def make_model(seed, tie, **shape):
    config = LlamaConfig(
        rms_norm_eps=1e-5, tie_word_embeddings=tie, max_position_embeddings=128,
        bos_token_id=1, eos_token_id=2, pad_token_id=2, attn_implementation="eager", **shape)
    model = LlamaForCausalLM(config).eval()
    rng = np.random.Generator(np.random.Philox(seed))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:  # norms
                value = rng.uniform(0.5, 1.5, weight.shape)
            else:
                value = rng.normal(0, 0.3 if "embed" in name else 0.2, weight.shape)
            weight.copy_(torch.from_numpy(value.astype(np.float32)))
    return model


def write_gguf(path, model, tokens, merges, specials, dtype=np.float32):
    c = model.config
    w = gguf.GGUFWriter(path, "llama")
    w.add_name(path.stem)
    w.add_file_type(1 if dtype == np.float16 else 0)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_block_count(c.num_hidden_layers)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_key_length(c.head_dim)
    w.add_value_length(c.head_dim)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    w.add_rope_freq_base(c.rope_parameters["rope_theta"])
    w.add_rope_dimension_count(c.head_dim)
    w.add_vocab_size(c.vocab_size)
    add_tokenizer(w, "smollm", tokens, merges, specials, bos=1, eos=2)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    parts = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q",
             "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
             "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    for i in range(c.num_hidden_layers):
        names |= {f"model.layers.{i}.{hf}": f"blk.{i}.{gg}" for hf, gg in parts.items()}
    for name, weight in model.named_parameters():
        value = weight.detach().numpy()
        if "q_proj" in name:
            value = permute(value, c.num_attention_heads)
        elif "k_proj" in name:
            value = permute(value, c.num_key_value_heads)
        value = value.astype(dtype if value.ndim > 1 else np.float32)
        w.add_tensor(names[name.removesuffix(".weight")] + ".weight", np.ascontiguousarray(value))
    finish(w)


def segments(seed, vocab):
    rng = np.random.Generator(np.random.Philox(seed))
    return [torch.from_numpy(rng.integers(0, vocab, n)) for n in LENGTHS]


def token_losses(model, seg, first):
    """Cross-entropy of the supervised tokens of one segment, `first` the first of them."""
    logits = model(seg[None]).logits[0]
    return torch.nn.functional.cross_entropy(
        logits[first - 1:-1].float(), seg[first:], reduction="none")


def batch_loss(model, segs, ids):
    """Sum over the supervised tokens of the batch, divided by their number."""
    return torch.cat([token_losses(model, segs[i], MASK_FROM[i]) for i in ids]).mean()


def targets_of(segs):
    """What each row predicts: the next token where that is supervised, else -1."""
    return np.array([int(seg[t + 1]) if first <= t + 1 < len(seg) else -1
                     for seg, first in zip(segs, MASK_FROM) for t in range(len(seg))], np.int32)


def padded_batch(model, segs):
    """The same segments as HF runs them: one batch, padded on the right."""
    longest = max(LENGTHS)
    ids = torch.full((len(segs), longest), model.config.pad_token_id)
    mask = torch.zeros_like(ids)
    for i, seg in enumerate(segs):
        ids[i, :len(seg)], mask[i, :len(seg)] = seg, 1
    logits = model(ids, attention_mask=mask).logits
    return [logits[i, :len(seg)] for i, seg in enumerate(segs)]


def add_lora(model, seed):
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=TARGETS,
                        task_type="CAUSAL_LM", base_model_name_or_path="llama_tiny")
    model = get_peft_model(model, config)
    model.peft_config["default"].base_model_name_or_path = "llama_tiny"
    rng = np.random.Generator(np.random.Philox(seed))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                std = 0.3 if "lora_A" in name else 0.1
                value = rng.normal(0, std, weight.shape).astype(np.float32)
                weight.copy_(torch.from_numpy(value))
    return model


def adapters(model):
    """Adapter parameters by PEFT file key, with their layer."""
    out = {}
    for name, weight in model.named_parameters():
        if "lora_" in name:
            layer = int(name.split(".layers.")[1].split(".")[0])
            out[name.replace(".default", "")] = (layer, weight)
    return out


def set_active(params, layers):
    for layer, weight in params.values():
        weight.requires_grad_(layer in layers)
        weight.grad = None


def gradients(model, segs, layers):
    params = adapters(model)
    set_active(params, layers)
    loss = batch_loss(model, segs, range(len(segs)))
    loss.backward()
    return loss.item(), {k: p.grad.numpy().copy() for k, (_, p) in params.items()
                         if p.grad is not None}


def train(model, segs):
    """Ten AdamW steps over ACTIVE and BATCHES; frozen layers have no gradient at all."""
    params = adapters(model)
    optimizer = torch.optim.AdamW([p for _, p in params.values()], lr=LR, betas=BETAS, eps=EPS,
                                  weight_decay=0.0)
    losses, norms = [], []
    for layers, batch in zip(ACTIVE, BATCHES):
        set_active(params, layers)
        loss = batch_loss(model, segs, batch)
        loss.backward()
        active = [p for _, p in params.values() if p.grad is not None]
        norms.append(float(torch.nn.utils.clip_grad_norm_(active, CLIP)))
        optimizer.step()
        losses.append(loss.item())
    return losses, norms


def suppress(model, layers, factor):
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and int(name.split(".layers.")[1].split(".")[0]) in layers:
            module.scaling["default"] *= factor


def closeness(what, a, b):
    error = max(float(np.abs(np.asarray(x) - np.asarray(y)).max()) for x, y in zip(a, b))
    print(f"{what}: max abs difference {error:.2e}")
    return error


def check_file(name, segs, logits):
    """The file read back by transformers must be the same model."""
    model = LlamaForCausalLM.from_pretrained(str(OUT), gguf_file=name, dtype=torch.float32,
                                             attn_implementation="eager").eval()
    with torch.no_grad():
        again = [model(s[None]).logits[0] for s in segs]
    assert closeness(f"{name} read back by transformers", logits, again) < 1e-4


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    OUT.mkdir(exist_ok=True)
    shape = dict(vocab_size=len(VOCAB), hidden_size=24, intermediate_size=36, num_hidden_layers=4,
                 num_attention_heads=4, num_key_value_heads=2,
                 rope_parameters={"rope_type": "default", "rope_theta": 10000.0})

    def fresh():
        return make_model(1, True, **shape)

    def trained_dtype(dtype):
        model = add_lora(fresh(), 3).to(dtype)
        losses, norms = train(model, segs)
        final = {k: p.detach().float().numpy() for k, (_, p) in adapters(model).items()}
        return losses, norms, final

    segs = segments(2, len(VOCAB))
    base = fresh()
    write_gguf(OUT / "llama_tiny.gguf", base, VOCAB, MERGES, [0, 1, 2])
    with torch.no_grad():
        logits = [base(s[None]).logits[0] for s in segs]
        error = closeness("padded batch against single segments", logits, padded_batch(base, segs))
        assert error < 1e-4
        per_token = [token_losses(base, s, m) for s, m in zip(segs, MASK_FROM)]
        loss_base = torch.cat(per_token).mean().item()

    check_file("llama_tiny.gguf", segs, logits)
    model = add_lora(fresh(), 3)
    model.save_pretrained(OUT / "adapter")
    (OUT / "adapter" / "README.md").unlink(missing_ok=True)  # PEFT's model card form
    config_file = OUT / "adapter" / "adapter_config.json"
    config = json.loads(config_file.read_text())
    config["target_modules"] = TARGETS  # PEFT writes a set, in random order
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    initial = {k: p.detach().numpy() for k, (_, p) in adapters(model).items()}
    assert initial.keys() == get_peft_model_state_dict(model).keys()

    every = list(range(shape["num_hidden_layers"]))
    loss_adapter, grads = gradients(model, segs, every)
    _, some = gradients(model, segs, ACTIVE_GRADS)
    assert some.keys() == {k for k, (l, _) in adapters(model).items() if l in ACTIVE_GRADS}
    assert closeness("gradients, active layers only against all", [grads[k] for k in some],
                     some.values()) < 1e-6
    with torch.no_grad():
        logits_adapter = [model(s[None]).logits[0, -1] for s in segs]
        suppress(model, SUPPRESSED, FACTOR)
        loss_suppressed = batch_loss(model, segs, range(len(segs))).item()

    losses, norms, final = trained_dtype(torch.float32)
    losses64, _, final64 = trained_dtype(torch.float64)
    moved = max(float(np.abs(final[k] - initial[k]).max()) for k in final)
    e_loss = closeness("ten steps, losses, f32 against f64", [losses], [losses64])
    e_final = closeness("ten steps, adapters, f32 against f64", final.values(), final64.values())

    mask = [int(t >= first) for n, first in zip(LENGTHS, MASK_FROM) for t in range(n)]
    targets = targets_of(segs)
    rows = [np.pad(l.numpy(), (m - 1, 1)) for l, m in zip(per_token, MASK_FROM)]
    starts = np.concatenate([[0], np.cumsum(LENGTHS)])
    tensors = {
        "tokens": np.concatenate([s.numpy() for s in segs]).astype(np.int32),
        "segment_starts": starts.astype(np.int32),
        "label_mask": np.array(mask, np.int32),
        "targets": targets,
        "logits": torch.cat(logits).numpy(),
        "logits_adapter_last": torch.stack(logits_adapter).numpy(),
        "token_loss": np.concatenate(rows).astype(np.float32),
        "steps.active": np.array([[int(l in a) for l in every] for a in ACTIVE], np.int32),
        "steps.segments": np.array(BATCHES, np.int32),
        "steps.loss": np.array(losses, np.float32),
        "steps.grad_norm": np.array(norms, np.float32),
    }
    tensors |= {"grad." + k: v for k, v in grads.items()}
    tensors |= {"final." + k: v for k, v in final.items()}
    metadata = versions("torch", "transformers", "peft", "gguf", "numpy", "safetensors")
    metadata |= {k: repr(v) for k, v in {
        "loss_base": loss_base, "loss_adapter": loss_adapter, "loss_suppressed": loss_suppressed,
        "supervised": int((targets >= 0).sum()), "rank": RANK, "alpha": ALPHA, "lr": LR,
        "beta1": BETAS[0], "beta2": BETAS[1], "eps": EPS, "clip": CLIP, "weight_decay": 0.0,
        "suppress_factor": FACTOR}.items()}
    metadata |= {"suppress_layers": "0 2", "grad_active_layers": "1 3"}
    save(OUT / "goldens.safetensors", tensors, metadata)

    # A second shape: F16 weights, untied output, one key/value head, D != H * E, another base.
    tokens2 = VOCAB[:len(SPECIALS) + 257]  # one merge, as llama.cpp wants some
    model2 = make_model(4, False, vocab_size=len(tokens2), hidden_size=18, intermediate_size=20,
                        num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1,
                        head_dim=8,
                        rope_parameters={"rope_type": "default", "rope_theta": 500000.0})
    with torch.no_grad():
        for weight in model2.parameters():
            if weight.dim() > 1:
                weight.copy_(weight.half().float())
    write_gguf(OUT / "llama_untied.gguf", model2, tokens2, MERGES[:1], [0, 1, 2], np.float16)
    segs2 = segments(5, len(tokens2))
    with torch.no_grad():
        logits2 = [model2(s[None]).logits[0] for s in segs2]
        loss2 = batch_loss(model2, segs2, range(len(segs2))).item()
    check_file("llama_untied.gguf", segs2, logits2)
    save(OUT / "untied.safetensors", {
        "tokens": np.concatenate([s.numpy() for s in segs2]).astype(np.int32),
        "segment_starts": starts.astype(np.int32), "label_mask": np.array(mask, np.int32),
        "targets": targets_of(segs2), "logits_last": torch.stack([l[-1] for l in logits2]).numpy(),
    }, versions("torch", "transformers", "gguf") | {"loss_base": repr(loss2)})

    print(f"losses: base {loss_base:.6f} adapter {loss_adapter:.6f} "
          f"suppressed {loss_suppressed:.6f} untied {loss2:.6f}")
    print("steps:", " ".join(f"{x:.4f}" for x in losses))
    print("norms:", " ".join(f"{x:.4f}" for x in norms))
    print(f"logits std {torch.cat(logits).std():.3f}, largest adapter movement {moved:.4f}, "
          f"f32-f64 loss {e_loss:.1e} adapters {e_final:.1e}")
    files = sorted(p for p in OUT.rglob("*") if p.is_file())
    for path in files:
        print(f"{path.stat().st_size:8d} {path.relative_to(OUT)}")
    print(f"{sum(p.stat().st_size for p in files):8d} together")
    assert math.isfinite(loss_adapter)


if __name__ == "__main__":
    main()
