#!/usr/bin/env python3
"""A tiny random model of every family, with what transformers and PEFT make of it.

Writes families/<name>/: a Hugging Face folder (config.json, model.safetensors in F16),
its adapter as PEFT knows it, goldens.safetensors, and model.gguf where llama.cpp knows
the family. See README.md beside this file. Run: python make_families.py [NAME...]
"""

import json
import os
import shutil
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import gguf
import numpy as np
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.numpy import load_file, save_file

from common import finish, permute, save, versions
from experts import separate_experts

OUT = Path(__file__).parent / "families"
RANK, ALPHA = 2, 4
LENGTHS = [3, 17, 6, 9]
MASK_FROM = [1, 11, 1, 5]  # first supervised token of each segment
PROMPT, GREEDY = 5, 20
V = 96

LLAMA = dict(vocab_size=V, hidden_size=24, intermediate_size=36, num_hidden_layers=3,
             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
             tie_word_embeddings=False)
ROPE = {"rope_theta": 10000.0}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
GPT = dict(vocab_size=V, n_embd=24, n_layer=2, n_head=3, n_positions=64)
NEOX = dict(vocab_size=V, hidden_size=24, intermediate_size=36, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=64, rotary_pct=0.5)
DENSE = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
OPT = dict(vocab_size=V, hidden_size=24, ffn_dim=36, num_hidden_layers=2, num_attention_heads=3,
           max_position_embeddings=64, dropout=0.0, activation_function="relu")
OPT_LINEAR = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


MOE = LLAMA | dict(num_hidden_layers=2)
MIXTRAL_LINEAR = LINEAR[:4] + ["w1", "w3", "w2"]


def rope(kind, **more):
    return dict(rope_parameters=ROPE | {"rope_type": kind} | more)


# name -> (class prefix, settings, PEFT targets, GGUF arch or None)
FAMILIES = {
    "llama_biased": ("Llama", LLAMA | dict(attention_bias=True, mlp_bias=True), LINEAR, "llama"),
    "llama_llama3": ("Llama", LLAMA | rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=32), LINEAR, "llama"),
    "llama_linear": ("Llama", LLAMA | rope("linear", factor=4.0), LINEAR, None),
    "llama_yarn": ("Llama", LLAMA | rope(
        "yarn", factor=4.0, original_max_position_embeddings=16), LINEAR, "llama"),
    "llama_dynamic": ("Llama", LLAMA | dict(max_position_embeddings=8) | rope(
        "dynamic", factor=2.0), LINEAR, None),
    "mistral": ("Mistral", LLAMA | dict(head_dim=8, sliding_window=4), LINEAR, None),
    "qwen2": ("Qwen2", LLAMA, LINEAR, "qwen2"),
    "qwen2_window": ("Qwen2", LLAMA | dict(use_sliding_window=True, sliding_window=4,
                                           max_window_layers=1), LINEAR, None),
    "qwen3": ("Qwen3", LLAMA | dict(head_dim=8), LINEAR, "qwen3"),
    "mixtral": ("Mixtral", MOE | dict(intermediate_size=16, num_local_experts=4,
                num_experts_per_tok=2, sliding_window=None), MIXTRAL_LINEAR, "llama"),
    "qwen3_moe": ("Qwen3Moe", MOE | dict(head_dim=8, num_experts=5, num_experts_per_tok=2,
                  moe_intermediate_size=12, norm_topk_prob=True), LINEAR, "qwen3moe"),
    "qwen3_moe_plain": ("Qwen3Moe", MOE | dict(
        head_dim=8, num_experts=5, num_experts_per_tok=3, moe_intermediate_size=12,
        norm_topk_prob=False), LINEAR, None),
    "qwen2_moe": ("Qwen2Moe", MOE | dict(num_experts=4, num_experts_per_tok=2,
                  moe_intermediate_size=12, shared_expert_intermediate_size=20), LINEAR,
                  "qwen2moe"),
    "qwen2_moe_mixed": ("Qwen2Moe", LLAMA | dict(
        num_hidden_layers=4, intermediate_size=20, decoder_sparse_step=2, mlp_only_layers=[1],
        num_experts=3, num_experts_per_tok=2, moe_intermediate_size=12,
        shared_expert_intermediate_size=8, norm_topk_prob=True), LINEAR, None),
    "phi3": ("Phi3", LLAMA | dict(pad_token_id=0, original_max_position_embeddings=8,
             rope_parameters=ROPE | {
        "rope_type": "longrope", "short_factor": [1.0, 1.3], "long_factor": [2.0, 5.0],
        "partial_rotary_factor": 0.75}), ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
        "phi3"),
    "smollm3": ("SmolLM3", LLAMA | dict(num_hidden_layers=4, pad_token_id=0, bos_token_id=1,
                eos_token_id=2, tie_word_embeddings=True), LINEAR, "smollm3"),
    "gemma": ("Gemma", LLAMA | dict(head_dim=8, tie_word_embeddings=True), LINEAR, "gemma"),
    "gemma2": ("Gemma2", LLAMA | dict(head_dim=8, sliding_window=4, query_pre_attn_scalar=8,
               attn_logit_softcapping=2.0, final_logit_softcapping=3.0,
               tie_word_embeddings=True), LINEAR, "gemma2"),
    "gemma3": ("Gemma3", LLAMA | dict(num_hidden_layers=6, head_dim=8, sliding_window=4,
               query_pre_attn_scalar=8, tie_word_embeddings=True), LINEAR, "gemma3"),
    "gpt2": ("GPT2", GPT, ["c_attn", "c_proj", "c_fc"], "gpt2"),
    "gptj": ("GPTJ", GPT | dict(rotary_dim=4, n_inner=36),
             ["q_proj", "k_proj", "v_proj", "out_proj", "fc_in", "fc_out"], None),
    "gpt_neox": ("GPTNeoX", NEOX, DENSE, "gptneox"),
    "gpt_neox_serial": ("GPTNeoX", NEOX | dict(use_parallel_residual=False), DENSE, "gptneox"),
    "bloom": ("Bloom", dict(vocab_size=V, hidden_size=24, n_layer=2, n_head=6), DENSE, "bloom"),
    "opt": ("OPT", OPT, OPT_LINEAR, None),
    "opt_350m": ("OPT", OPT | dict(do_layer_norm_before=False, word_embed_proj_dim=16), OPT_LINEAR,
                 None),
}


def make_model(prefix, settings, seed):
    name = prefix + ("LMHeadModel" if prefix == "GPT2" else "ForCausalLM")
    config_name = prefix + ("TextConfig" if prefix == "Gemma3" else "Config")
    for key in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
        if prefix in ("GPT2", "GPTJ"):
            settings = settings | {key: 0.0}
    config = getattr(transformers, config_name)(attn_implementation="eager", **settings)
    model = getattr(transformers, name)(config).float().eval()
    rng = np.random.Generator(np.random.Philox(seed))
    with torch.no_grad():
        for key, weight in model.named_parameters():
            norm = weight.dim() == 1 and ("norm" in key or ".ln_" in key) and "bias" not in key
            if norm:
                value = rng.uniform(0.5, 1.5, weight.shape) - (1 if "Gemma" in prefix else 0)
            elif weight.dim() == 1:
                value = rng.normal(0, 0.2, weight.shape)
            else:
                value = rng.normal(0, 0.3, weight.shape)
            weight.copy_(torch.from_numpy(value.astype(np.float16).astype(np.float32)))
        model.tie_weights()
    return model


def published(key, prefix):
    """The name that the tensor has in a published folder."""
    return key.replace(".mlp.", ".block_sparse_moe.") if prefix == "Mixtral" else key


def logits_of(model, seg):
    return model(seg[None]).logits[0]


def check_padded(model, segs, logits):
    ids = torch.zeros(len(segs), max(LENGTHS), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, seg in enumerate(segs):
        ids[i, :len(seg)], mask[i, :len(seg)] = seg, 1
    padded = model(ids, attention_mask=mask).logits
    return max(float((padded[i, :len(s)] - l).abs().max()) for i, (s, l) in
               enumerate(zip(segs, logits)))


def greedy(model, prompt):
    """Twenty tokens through the cache of keys; how far the second best lay behind."""
    ids, fed, cache, margin = prompt, prompt, None, 1e9
    for _ in range(GREEDY):
        out = model(fed[None], past_key_values=cache, use_cache=True)
        cache, last = out.past_key_values, out.logits[0, -1]
        best = torch.topk(last, 2).values
        margin = min(margin, float(best[0] - best[1]))
        fed = last.argmax()[None]
        ids = torch.cat([ids, fed])
    return ids, margin


def batch_loss(model, segs):
    losses = [torch.nn.functional.cross_entropy(logits_of(model, s)[m - 1:-1], s[m:],
                                                reduction="none")
              for s, m in zip(segs, MASK_FROM)]
    return torch.cat(losses).mean()


def add_lora(model, targets, name):
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=targets,
                        task_type="CAUSAL_LM", base_model_name_or_path=name)
    model = get_peft_model(model, config)
    model.peft_config["default"].base_model_name_or_path = name
    rng = np.random.Generator(np.random.Philox(3))
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "lora_" in key:
                std = 0.3 if "lora_A" in key else 0.1
                weight.copy_(torch.from_numpy(rng.normal(0, std, weight.shape).astype(np.float32)))
    return model


def save_folder(folder, model):
    """The folder as save_pretrained names things, matrices and all in F16."""
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    tensors = {k: v.astype(np.float16) for k, v in load_file(folder / "model.safetensors").items()}
    save_file(dict(sorted(tensors.items())), folder / "model.safetensors", {"format": "pt"})
    return tensors


# ---- GGUF -----------------------------------------------------------------------------

NAMES = [  # Hugging Face -> GGUF, in the order tried
    ("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output"),
    ("transformer.wte", "token_embd"), ("transformer.wpe", "position_embd"),
    ("transformer.ln_f", "output_norm"), ("gpt_neox.embed_in", "token_embd"),
    ("gpt_neox.final_layer_norm", "output_norm"), ("embed_out", "output"),
    ("transformer.word_embeddings_layernorm", "token_embd_norm"),
    ("transformer.word_embeddings", "token_embd"),
]
PARTS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.qkv_proj": "attn_qkv",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "mlp.gate_up_proj": "ffn_up", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down", "ln_1":
    "attn_norm", "ln_2": "ffn_norm", "attention.query_key_value": "attn_qkv",
    "attention.dense": "attn_output", "self_attention.query_key_value": "attn_qkv",
    "self_attention.dense": "attn_output", "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down", "block_sparse_moe.gate": "ffn_gate_inp",
    "mlp.gate": "ffn_gate_inp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp", "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
}
EXPERTS = {"gate_proj": "gate", "up_proj": "up", "down_proj": "down",
           "w1": "gate", "w3": "up", "w2": "down"}
SANDWICH = {"post_attention_layernorm": "post_attention_norm",
            "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm"}


def gguf_name(name, arch):
    stem, kind = name.rsplit(".", 1)
    for theirs, ours in NAMES:
        if stem == theirs:
            return f"{ours}.{kind}"
    before, after = stem.split(".layers." if ".layers." in stem else ".h.")
    layer, part = after.split(".", 1)
    parts = PARTS | (SANDWICH if arch in ("gemma2", "gemma3") else {})
    return f"blk.{layer}.{parts[part]}.{kind}"


def ungroup(value, heads):
    """Rows q, k, v by head -> all q, all k, all v."""
    size = value.shape[0] // heads // 3
    return value.reshape(heads, 3, size, -1).swapaxes(0, 1).reshape(value.shape)


def stack_experts(tensors, count):
    """One tensor a layer and kind of matrix, (experts, out, in), under its GGUF name."""
    stacks = {}
    for name in [n for n in tensors if ".experts." in n]:
        before, after = name.split(".experts.")
        expert, kind = after.removesuffix(".weight").split(".")
        layer = before.split(".layers.")[1].split(".")[0]
        key = f"blk.{layer}.ffn_{EXPERTS[kind]}_exps.weight"
        stacks.setdefault(key, [None] * count)[int(expert)] = tensors.pop(name)
    return {key: np.stack(values) for key, values in stacks.items()}


def convert(name, value, arch, config):
    heads = config.num_attention_heads
    if arch in ("llama", "smollm3") and "q_proj" in name:
        return permute(value, heads).reshape(value.shape)
    if arch in ("llama", "smollm3") and "k_proj" in name:
        return permute(value, config.num_key_value_heads).reshape(value.shape)
    if arch.startswith("gemma") and name.endswith("norm.weight"):
        return value + 1
    if "query_key_value" in name:
        return ungroup(value, heads)
    if arch == "gpt2" and value.ndim == 2 and (".attn." in name or ".mlp." in name):
        return value.T
    return value


def write_rope(w, arch, config):
    parameters = getattr(config, "rope_parameters", None) or {}
    if arch == "gemma3":
        w.add_rope_freq_base(parameters["full_attention"]["rope_theta"])
        w.add_float32("gemma3.rope.freq_base_swa", parameters["sliding_attention"]["rope_theta"])
        return
    if "rope_theta" in parameters:
        w.add_rope_freq_base(parameters["rope_theta"])
    kind = parameters.get("rope_type", "default")
    if kind in ("linear", "yarn"):
        w.add_rope_scaling_type(gguf.RopeScalingType(kind))
        w.add_rope_scaling_factor(parameters["factor"])
    if kind == "yarn":
        w.add_rope_scaling_orig_ctx_len(parameters["original_max_position_embeddings"])
    if kind == "llama3":
        half = config.head_dim // 2
        plain = 10000.0 ** (-np.arange(half) / half)
        inv, _ = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
        w.add_tensor("rope_freqs.weight", (plain / inv.numpy()).astype(np.float32))
    if kind == "longrope":
        original = config.original_max_position_embeddings
        scale = config.max_position_embeddings / original
        w.add_rope_scaling_orig_ctx_len(original)
        w.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(scale) / np.log(original))))
        for length in ("long", "short"):
            w.add_tensor(f"rope_factors_{length}.weight",
                         np.array(parameters[f"{length}_factor"], np.float32))


def write_gguf(path, arch, config, tensors):
    w = gguf.GGUFWriter(path, arch)
    D, H = config.hidden_size, config.num_attention_heads
    E = getattr(config, "head_dim", None) or D // H
    w.add_name(path.parent.name)
    w.add_vocab_size(V)
    w.add_context_length(getattr(config, "max_position_embeddings", 64))
    w.add_embedding_length(D)
    w.add_block_count(config.num_hidden_layers)
    w.add_feed_forward_length(getattr(config, "intermediate_size", None) or 4 * D)
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    if experts:
        w.add_expert_count(experts)
        w.add_expert_used_count(config.num_experts_per_tok)
        tensors = dict(tensors)
        for name, value in stack_experts(tensors, experts).items():
            w.add_tensor(name, value)
    if arch in ("qwen2moe", "qwen3moe"):
        w.add_expert_feed_forward_length(config.moe_intermediate_size)
    if arch == "qwen2moe":
        w.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
    w.add_head_count(H)
    w.add_head_count_kv(getattr(config, "num_key_value_heads", None) or H)
    w.add_key_length(E)
    w.add_value_length(E)
    if hasattr(config, "rms_norm_eps"):
        w.add_layer_norm_rms_eps(config.rms_norm_eps)
    else:
        w.add_layer_norm_eps(getattr(config, "layer_norm_eps", 1e-5))
    if arch not in ("gpt2", "bloom"):
        part = (config.rope_parameters or {}).get("partial_rotary_factor", 1.0)
        w.add_rope_dimension_count(int(E * part))
    write_rope(w, arch, config)
    if arch == "gptneox":
        w.add_parallel_residual(config.use_parallel_residual)
    if arch in ("gemma2", "gemma3", "phi3"):
        w.add_sliding_window(getattr(config, "sliding_window", None) or 0)
    if arch == "gemma2":
        w.add_attn_logit_softcapping(config.attn_logit_softcapping)
        w.add_final_logit_softcapping(config.final_logit_softcapping)
    w.add_tokenizer_model("no_vocab")
    for name, value in tensors.items():
        value = convert(name, value.astype(np.float32), arch, config)
        router = "ffn_gate_inp" in gguf_name(name, arch)
        if name.endswith("shared_expert_gate.weight"):
            value = value[0]
        narrow = value.ndim > 1 and "wpe" not in name and not router
        w.add_tensor(gguf_name(name, arch),
                     np.ascontiguousarray(value.astype(np.float16 if narrow else np.float32)))
    finish(w)


# ---- One family ---------------------------------------------------------------------------

def make(name):
    prefix, settings, targets, arch = FAMILIES[name]
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    seed = sum(name.encode())
    for seed in range(seed, seed + 50):  # until no greedy choice is close
        model = make_model(prefix, settings, seed)
        rng = np.random.Generator(np.random.Philox(2))
        segs = [torch.from_numpy(rng.integers(3, V, n)) for n in LENGTHS]
        with torch.no_grad():
            chosen, margin = greedy(model, segs[1][:PROMPT])
        if margin > 0.01:
            break
    with torch.no_grad():
        logits = [logits_of(model, s) for s in segs]
        error = check_padded(model, segs, logits)
    # The frequencies of a padded batch are those of its longest sequence.
    assert name in ("llama_dynamic", "phi3") or error < 1e-4, error
    config = model.config
    tensors = save_folder(folder, model)
    if arch:
        write_gguf(folder / "model.gguf", arch, config, tensors)
    if "Moe" in prefix or prefix == "Mixtral":
        separate_experts(model, prefix)
        with torch.no_grad():
            again = torch.cat([logits_of(model, s) for s in segs]) - torch.cat(logits)
        assert again.abs().max() < 1e-4
    model = add_lora(model, targets, name)
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    file = folder / "adapter" / "adapter_model.safetensors"
    save_file({published(k, prefix): v for k, v in load_file(file).items()}, file,
              {"format": "pt"})
    file = folder / "adapter" / "adapter_config.json"
    settings = json.loads(file.read_text())
    settings["target_modules"] = targets  # PEFT writes a set, in random order
    file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    loss = batch_loss(model, segs)
    loss.backward()
    grads = {"grad." + published(k.replace(".default", ""), prefix): p.grad.numpy()
             for k, p in model.named_parameters() if "lora_" in k}
    with torch.no_grad():
        adapted = torch.stack([logits_of(model, s)[-1] for s in segs])
    mask = [int(t >= first) for n, first in zip(LENGTHS, MASK_FROM) for t in range(n)]
    starts = np.concatenate([[0], np.cumsum(LENGTHS)]).astype(np.int32)
    save(folder / "goldens.safetensors", {
        "tokens": np.concatenate([s.numpy() for s in segs]).astype(np.int32),
        "segment_starts": starts, "label_mask": np.array(mask, np.int32),
        "logits": torch.cat(logits).numpy(), "logits_adapter_last": adapted.numpy(),
        "greedy": chosen.numpy().astype(np.int32),
    } | grads, versions("torch", "transformers", "peft", "gguf", "numpy") | {
        "loss_adapter": repr(loss.item()), "rank": repr(RANK), "alpha": repr(ALPHA),
        "prompt": repr(PROMPT)})
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    print(f"{name:16} {size:7d} bytes, padded {error:.1e}, greedy margin {margin:.3f}, "
          f"loss {loss.item():.4f}, logits sd {torch.cat(logits).std():.2f}, seed {seed}")
    return size


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    names = sys.argv[1:] or list(FAMILIES)
    print(sum(make(name) for name in names), "bytes together")


if __name__ == "__main__":
    main()
