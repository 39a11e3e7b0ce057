#!/usr/bin/env python3
"""Makes the seeds of fuzz/corpus: small, valid inputs of every kind. Needs Python's gguf,
numpy and safetensors, and zstd; run it anew when a target learns something (cases that the fuzzer
found lie beside the seeds and stay)."""
import gzip
import json
import os
import pathlib
import re
import struct
import subprocess
import tempfile

import gguf
import numpy as np
from safetensors.numpy import load_file, save

HERE = pathlib.Path(__file__).parent
GOLDEN = HERE.parent / "tests" / "golden"
TOKENIZERS = HERE.parent / "tests" / "tokenizer" / "golden"


def put(target, name, *parts):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    data = b"\n%%\n".join(p.encode() if isinstance(p, str) else p for p in parts)
    (folder / name).write_bytes(data)


def gguf_bytes(arch, fill):
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "x.gguf")
        w = gguf.GGUFWriter(path, arch)
        fill(w)
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()
        return open(path, "rb").read()


def vocab(w):
    tokens = [b"<unk>", b"<s>", b"</s>", b"a", b"b", b"ab", "\u0120a".encode(), "\u0120".encode(),
              b"<|im_start|>"]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("smollm")
    w.add_token_list(tokens)
    w.add_token_types([2, 3, 3, 1, 1, 1, 1, 1, 3])
    w.add_token_merges(["a b", "\u0120 a"])
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_add_bos_token(True)
    w.add_chat_template("{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}{% endfor %}")


def pieces(w):
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(0, 256, 17)]
    tokens += ["\u2581", "a", "b", "ab", "\u2581ab"]
    n = len(tokens)
    w.add_tokenizer_model("llama")
    w.add_token_list([t.encode() for t in tokens])
    w.add_token_scores([0.0] * 3 + [-float(i) for i in range(3, n)])
    w.add_token_types([2, 3, 3] + [6] * 16 + [1] * (n - 19))
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)


def model(arch, quantised):
    """One layer, width 32, 8 tokens; all that a model of the family needs to open."""
    def fill(w):
        D, F, V = 32, 32, 9
        w.add_context_length(64)
        w.add_embedding_length(D)
        w.add_block_count(1)
        w.add_feed_forward_length(F)
        w.add_head_count(2)
        w.add_head_count_kv(1)
        w.add_layer_norm_rms_eps(1e-5)
        w.add_rope_freq_base(10000.0)
        vocab(w)
        r = np.random.default_rng(1)

        def matrix(name, out, inside):
            x = r.standard_normal((out, inside)).astype(np.float32) * 0.1
            if quantised:
                t = gguf.GGMLQuantizationType.Q4_0
                w.add_tensor(name, gguf.quants.quantize(x, t), raw_dtype=t)
            else:
                w.add_tensor(name, x.astype(np.float16))
        matrix("token_embd.weight", V, D)
        for n in ("attn_q", "attn_output"):
            matrix(f"blk.0.{n}.weight", D, D)
        for n in ("attn_k", "attn_v"):
            matrix(f"blk.0.{n}.weight", D // 2, D)
        for n in ("ffn_gate", "ffn_up"):
            matrix(f"blk.0.{n}.weight", F, D)
        matrix("blk.0.ffn_down.weight", D, F)
        for n in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
            w.add_tensor(f"{n}.weight", np.ones(D, np.float32))
    return gguf_bytes(arch, fill)


def plain(arch, kind):
    """The same in F16, width 8: with q, k, v in one tensor, or with two experts."""
    def fill(w):
        D, F, V, E = 8, 16, 9, 4
        w.add_context_length(64)
        w.add_embedding_length(D)
        w.add_block_count(1)
        w.add_feed_forward_length(F)
        w.add_head_count(2)
        w.add_head_count_kv(2 if arch == "gpt2" else 1)
        w.add_layer_norm_rms_eps(1e-5)
        w.add_layer_norm_eps(1e-5)
        w.add_rope_freq_base(10000.0)
        vocab(w)

        def matrix(name, *shape, dtype=np.float16):
            r = np.random.default_rng(len(name))
            w.add_tensor(name, (r.standard_normal(shape) * 0.1).astype(dtype))

        def norms(*names, bias):
            for n in names:
                w.add_tensor(f"{n}.weight", np.ones(D, np.float32))
                if bias:
                    w.add_tensor(f"{n}.bias", np.zeros(D, np.float32))
        matrix("token_embd.weight", V, D)
        gpt = arch == "gpt2"
        norms("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm", bias=gpt)
        if kind == "fused":
            all_rows = 3 * D if gpt else D + 2 * E
            matrix("blk.0.attn_qkv.weight", all_rows, D)
            matrix("blk.0.attn_qkv.bias", all_rows, dtype=np.float32)
        else:
            for n, rows in (("q", D), ("k", E), ("v", E)):
                matrix(f"blk.0.attn_{n}.weight", rows, D)
        matrix("blk.0.attn_output.weight", D, D)
        if gpt:
            matrix("position_embd.weight", 64, D)
            for n, rows in (("attn_output", D), ("ffn_up", F), ("ffn_down", D)):
                matrix(f"blk.0.{n}.bias", rows, dtype=np.float32)
        if kind == "experts":
            w.add_expert_count(2)
            w.add_expert_used_count(1)
            w.add_expert_feed_forward_length(E)
            matrix("blk.0.ffn_gate_inp.weight", 2, D, dtype=np.float32)
            for n, rows, inside in (("gate", E, D), ("up", E, D), ("down", D, E)):
                matrix(f"blk.0.ffn_{n}_exps.weight", 2, rows, inside)
            for n in ("q", "k"):
                w.add_tensor(f"blk.0.attn_{n}_norm.weight", np.ones(E, np.float32))
        else:
            for n, rows, inside in (("gate", F, D), ("up", F, D), ("down", D, F)):
                if not (gpt and n == "gate"):
                    matrix(f"blk.0.ffn_{n}.weight", rows, inside)
    return gguf_bytes(arch, fill)


def adapter(w):
    w.add_type("adapter")
    w.add_string("adapter.type", "lora")
    w.add_float32("adapter.lora.alpha", 8.0)
    w.add_tensor("blk.0.attn_q.weight.lora_a", np.ones((2, 4), np.float32))
    w.add_tensor("blk.0.attn_q.weight.lora_b", np.ones((4, 2), np.float32))


def every_kind(w):
    w.add_uint8("k.u8", 1)
    w.add_int8("k.i8", -1)
    w.add_uint16("k.u16", 2)
    w.add_int64("k.i64", -5)
    w.add_float64("k.f64", 0.5)
    w.add_bool("k.bool", True)
    w.add_string("k.str", "\u00e9\x1b[31m")
    w.add_array("k.ints", [1, 2, 3])
    w.add_array("k.floats", [1.0, 2.0])
    w.add_array("k.strs", ["a", "", "bc"])
    w.add_custom_alignment(64)
    w.add_tensor("t", np.arange(6, dtype=np.float32).reshape(2, 3))


def ggufs():
    put("gguf", "llama-q4_0", model("llama", True))
    put("gguf", "qwen2", model("qwen2", True))
    put("gguf", "fused", plain("qwen2", "fused"))
    put("gguf", "experts", plain("qwen3moe", "experts"))
    put("gguf", "gpt2", plain("gpt2", "fused"))
    put("gguf", "adapter", gguf_bytes("llama", adapter))
    put("gguf", "kinds", gguf_bytes("llama", every_kind))
    put("gguf_tokenizer", "bpe", "ab a<|im_start|>b \xff", gguf_bytes("llama", vocab))
    put("gguf_tokenizer", "pieces", "ab  a\u00e9</s>", gguf_bytes("llama", pieces))


def safetensors():
    a = save({"x": np.ones((2, 3), np.float32), "y": np.zeros(1, np.int64)}, {"format": "pt"})
    b = save({"model.norm.weight": np.ones(4, np.float16)})
    put("safetensors", "two", a)
    put("safetensors", "half", b)
    put("safetensors", "empty", struct.pack("<Q", 2) + b"{}")
    index = {"metadata": {"total_size": 40}, "weight_map": {
        "x": "a.safetensors", "y": "a.safetensors", "model.norm.weight": "b.safetensors"}}
    put("safetensors_index", "two", json.dumps(index), a, b)
    put("safetensors_index", "outside", '{"weight_map":{"x":"../a.safetensors"}}', a)


def small(path, drop=()):
    """A golden's JSON without the white space."""
    j = json.loads(path.read_text())
    for key in drop:
        j.pop(key, None)
    return json.dumps(j, separators=(",", ":"), ensure_ascii=False)


def configs():
    for folder in sorted((GOLDEN / "families").iterdir()):
        for path in sorted(folder.rglob("config.json")):
            put("config", folder.name, small(path))
    put("config", "llama", small(GOLDEN / "llama_hf" / "config.json"))


def folders():
    """The goldens' models with their first layer alone; a line for every tensor."""
    for i, folder in enumerate(sorted((GOLDEN / "families").iterdir())):
        if not (folder / "model.safetensors").exists():
            continue
        config = json.loads((folder / "config.json").read_text())
        for key in ("num_hidden_layers", "n_layer"):
            if key in config:
                config[key] = 1
        for key in ("layer_types", "no_rope_layers"):
            if key in config:
                config[key] = config[key][:1]
        lines = [" ".join([name, ("F32", "F16", "BF16")[i % 3], *map(str, t.shape)])
                 for name, t in load_file(folder / "model.safetensors").items()
                 if not re.search(r"(layers|h|layer)\.[1-9]\d*\.", name)]
        put("folder", folder.name, json.dumps(config, separators=(",", ":")), "\n".join(lines))


def tokenizers():
    for folder in sorted(p for p in TOKENIZERS.iterdir() if p.is_dir()):
        j = json.loads((folder / "tokenizer.json").read_text())
        m = j.get("model", {})
        merges = m.get("merges", [])[:6]
        keep = {"".join(x if isinstance(x, list) else x.split(" ")) for x in merges}
        text = lambda x: x if isinstance(x, list) else x.split(" ")
        keep |= {t for x in merges for t in text(x)}
        keep |= {a["content"] for a in j.get("added_tokens", [])} | {m.get("unk_token")}
        vocab_of = m.get("vocab", {})
        names = [t for t in vocab_of if t in keep or len(t) == 1][:80]
        names = list(dict.fromkeys(names + [t for t in vocab_of if t in keep]))
        m["vocab"] = {t: i for i, t in enumerate(names)}
        m["merges"] = merges
        for a in j.get("added_tokens", []):
            a["id"] = m["vocab"].get(a["content"], len(names) + a["id"])
        parts = ["the sum is 12\u00e9", json.dumps(j, separators=(",", ":"), ensure_ascii=False)]
        for name in ("tokenizer_config.json",):
            if (folder / name).exists():
                parts.append(small(folder / name))
        put("tokenizer_json", folder.name, *parts)


# Of the model that fuzz/use_model.h makes: (out, in) of each matrix.
SIZES = {"self_attn.q_proj": (4, 4), "self_attn.k_proj": (4, 4), "self_attn.v_proj": (4, 4),
         "self_attn.o_proj": (4, 4), "mlp.gate_proj": (8, 4), "mlp.up_proj": (8, 4),
         "mlp.down_proj": (4, 8)}


def pairs(modules, layers=(0, 1), rank=lambda layer, module: 2, dora=False):
    tensors = {}
    for layer in layers:
        for m in modules:
            out, inside = SIZES[m]
            r = rank(layer, m)
            stem = f"base_model.model.model.layers.{layer}.{m}"
            tensors[f"{stem}.lora_A.weight"] = np.ones((r, inside), np.float32)
            tensors[f"{stem}.lora_B.weight"] = np.ones((out, r), np.float32)
            if dora:
                tensors[f"{stem}.lora_magnitude_vector"] = np.ones(out, np.float32)
    return tensors


def bottlenecks(modules):
    """Parallel: from in to out of the linear; in series: of its in in front of it (q, v), of its
    out behind it (down)."""
    def one(name, widths, **more):
        tensors = {}
        for layer in (0, 1):
            for m, (inside, out) in widths.items():
                stem = f"base_model.model.model.layers.{layer}.{m}.adapter_"
                tensors[stem + "down.weight"] = np.full((2, inside), 0.5, np.float32)
                tensors[stem + "up.weight"] = np.ones((out, 2), np.float32)
                if more.get("scaling") == "learned":
                    tensors[stem + "scaling"] = np.ones(1, np.float32)
        config = {"peft_type": "BOTTLENECK", "bottleneck_size": 2, "non_linearity": "tanh",
                  "scaling": 1.5, "target_modules": [m.split(".")[1] for m in widths], **more}
        put("peft", name, json.dumps(config), save(tensors))
    one("parallel", {m: SIZES[m][::-1] for m in [*modules, "mlp.up_proj"]},
        use_parallel_adapter=True, scaling="learned")
    one("series", {**{m: (4, 4) for m in modules}, "mlp.down_proj": (4, 4)},
        use_parallel_adapter=False, non_linearity="swish", adapter_dropout=0.1)


def adapters():
    def one(name, tensors, targets, **more):
        config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": targets, **more}
        put("peft", name, json.dumps(config), save(tensors))

    qv = ["self_attn.q_proj", "self_attn.v_proj"]
    head = "base_model.model.lm_head"
    embed = "base_model.model.model.embed_tokens"
    one("linear", pairs(SIZES), "all-linear", use_rslora=True)
    one("dora", pairs(qv, dora=True), ["q_proj", "v_proj"], use_dora=True)
    one("regex", pairs(["mlp.up_proj"]), ".*\\.(gate|up)_proj", exclude_modules=["gate_proj"])
    one("layers", pairs(qv, layers=[1]), ["q_proj", "v_proj"], layers_to_transform=[1],
        layers_pattern="layers")
    one("patterns", pairs(qv, rank=lambda layer, m: 1 if "v_" in m else 2), ["q_proj", "v_proj"],
        rank_pattern={"v_proj": 1}, alpha_pattern={"layers.1.self_attn.q_proj": 8})
    one("outer", {f"{embed}.lora_embedding_A": np.zeros((2, 260), np.float16),
                  f"{embed}.lora_embedding_B": np.ones((4, 2), np.float16),
                  f"{head}.lora_A.weight": np.ones((2, 4), np.float16),
                  f"{head}.lora_B.weight": np.ones((260, 2), np.float16)},
        ["embed_tokens", "lm_head"])
    one("saved", {**pairs(["self_attn.q_proj"]), f"{head}.weight": np.ones((260, 4), np.float32)},
        ["q_proj"], modules_to_save=["lm_head"])
    bottlenecks(qv)
    prefix = {f"layers.{layer}.prefix_{n}": np.full((3, 4), 0.5, np.float32)
              for layer in (0, 1) for n in ("key", "value")}
    put("peft", "prefix", json.dumps({"peft_type": "IST_PREFIX", "num_virtual_tokens": 3,
                                      "base_model_name_or_path": None}), save(prefix))
    # Read and described, but of another model.
    t = save({"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight":
              np.ones((2, 4), np.float32)})
    for name in ("dora", "patterns", "regex", "layers"):
        put("peft", "foreign-" + name, small(GOLDEN / "adapters" / name / "adapter_config.json"), t)


def data():
    """Behind the letter of the kind: template (none, paper, chatml, alpaca, model), tokenizer
    (unknown characters are one token, lost or bytes, +3 and +6: other chat templates), loss."""
    def lines(name, how, *records):
        put("data", name, "j" + how + "".join(json.dumps(r) + "\n" for r in records))

    def says(*texts):
        return {"messages": [{"role": ("user", "assistant")[i % 2], "content": t}
                             for i, t in enumerate(texts)]}
    chat = says("ab", "a\n")
    pair = {"prompt": "a", "completion": "b"}
    task = {"instruction": "a", "input": "b", "output": "ab"}
    text = {"text": "a \u00e9"}
    for i, line in enumerate([chat, {"conversations": [{"from": "human", "value": "a"},
                                                       {"from": "gpt", "value": "b"}]},
                              pair, task, text]):
        lines(f"lines{i}", ("000", "200", "100", "320", "000")[i], line, line)
    lines("paper-task", "100", task, {"instruction": "z", "output": "</s>"})
    # Not a token of the first is in the vocabulary.
    lines("paper-lost", "110", {"prompt": "", "completion": "x"}, {"prompt": "z", "completion": "j"})
    turns = says("ab", "a\nb c", "q", "bcb z"), says("zj", " zjb ")
    for how in ("200", "210", "322", "411", "420", "452", "440", "481", "460"):
        lines("turns-" + how, how, *turns)
    call = {"role": "assistant", "tool_calls": [{"type": "function", "function": {
        "name": "f", "arguments": {"a": 1}}}]}
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    lines("tools", "420", {"messages": [*turns[0]["messages"][:1], call,
                                        {"role": "tool", "content": "2"},
                                        {"role": "assistant", "content": "b"}], "tools": tools})
    lines("bad-between", "020", chat, {"messages": []}, chat)
    put("data", "array", "j000\ufeff" + json.dumps([pair, pair]))
    put("data", "gzip", b"j000" + gzip.compress(json.dumps(pair).encode() + b"\n", mtime=0))
    put("data", "zstd", b"j000" + subprocess.run(
        ["zstd", "-qc"], input=json.dumps(text).encode() + b"\n", stdout=-1, check=True).stdout)
    put("data", "csv", 'c000prompt,completion\r\n"a ""b"", c","d\ne"\r\nf,g\r\n')
    put("data", "txt", "t000one\ntwo\n\n\nthree\r\n")


def templates():
    put("jinja", "chatml", "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m.content"
        " | trim + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}assistant{% endif %}")
    put("jinja", "tools", "{%- macro f(x, y=1) %}{{ x ~ y }}{% endmacro -%}{% set ns = namespace(n=0) %}"
        "{% for t in tools if t.name %}{% set ns.n = ns.n + loop.index %}{{ f(t | tojson(indent=2)) }}"
        "{% else %}none{% endfor %}{{ ns.n }}{{ raise_exception('x') if ns.n > 9 }}")
    put("jinja", "filters", "{{ messages | map(attribute='role') | join(', ') | upper }}"
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}"
        "{{ 'a,b'.split(',')[-1] | replace('b', 'c') | indent(2) }}{{ [3,1] | sort | first }}"
        "{{ 7 // 2 ** 2 - 1.5 % 1 }}{{ messages[::-1][0:1] }}{{ strftime_now('%d %b') }}")
    put("jinja", "generation", "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration"
        " %}{% if loop.last %}{% break %}{% endif %}{% endfor %}", '{"messages":[{"content":"x"}]}')
    for path in sorted((HERE.parent / "tests" / "jinja" / "templates").iterdir()):
        put("jinja", path.stem, path.read_text())


def checkpoints():
    def state(window, score):
        return save({"adapters": np.ones((2, 3), np.float32),
                     "progress.step": np.full(1, 7, np.int64),
                     "spikes.n": np.full(1, window, np.int64),
                     "spikes.value": np.full((2, 64), 1.5, np.float64),
                     "selector.suppressibility": np.full(4, score, np.float64),
                     "selector.observed": np.full(4, 3, np.int64),
                     "selector.drawn": np.full(4, 2, np.int64)})
    plan = {"order": "token", "recompute": "layer", "weights": "stream", "micro_tokens": 64,
            "head_rows": 32, "moments_on_disk": False, "drop_pages": False, "spill": False}
    settings = {"rank": 16, "alpha": 32.0, "method": "lora", "plan": plan}
    record = {"version": 1, "step": 7, "tensors_xxh64": "", "settings": settings, "record_xxh64": ""}
    put("checkpoint", "whole", "o" + json.dumps(record), state(20, 0.25))
    put("checkpoint", "steep", "o" + json.dumps(record) + " ", state(1 << 40, 1e300))
    put("checkpoint", "changed", "x" + json.dumps(record), state(7, 0))


def settings():
    put("settings", "some", '{"rank":8,"lr":1e-3,"method":"dora","rslora":true,"steps":"12",'
        '"train_path":"d.jsonl","selector":"fixed:0,3","dropout":0.1,"seed":12345}')


ggufs()
safetensors()
configs()
folders()
tokenizers()
adapters()
data()
templates()
checkpoints()
settings()
