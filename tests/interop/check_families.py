#!/usr/bin/env python3
"""Every tiny family through the command: trained from its Hugging Face folder on all of its
linears (experts too); PEFT reads the adapter and gives the same logits and the same text, and
llama.cpp reads adapter.gguf on the family's GGUF. The GGUF itself, and merged with the adapter, becomes
a folder that transformers reads.

python check_families.py [NAME...]
"""

import json
import shutil

from peft import PeftModel

import families_llamacpp as cpp
from common import *

sys.path.append(str(GOLDEN))

FAMILIES = GOLDEN / "families"
ATTENTION = "q_proj,k_proj,v_proj,o_proj,"


def targets_of(name):
    if name == "mixtral":
        return ATTENTION + "w1,w2,w3"
    return ATTENTION + "gate_proj,up_proj,down_proj" if "moe" in name else "all-linear"


def peft_model(name, base, out):
    """The folder with the adapter. PEFT stacks adapters of experts as transformers 5 does their
    matrices, for Mixtral and Qwen 3 MoE; in its version 0.21 not for Qwen 2 MoE (they are passed
    over with a warning), whose experts are modules here, as they were in transformers 4."""
    model = hf_model(base)
    if name.startswith("qwen2_moe"):
        from experts import separate_experts
        separate_experts(model, "Qwen2Moe")
    return PeftModel.from_pretrained(model, str(out)).eval()


def hf_greedy(model, ids, n):
    for _ in range(n):
        ids = ids + [int(hf_logits(model, ids)[-1].argmax())]
    return ids[-n:]


def check_llamacpp(checks, name, base, ids, out):
    """The same adapter and GGUF in ist and in llama.cpp, both in F32."""
    with tempfile.TemporaryDirectory() as temp:
        path = cpp.f32_copy(base / "model.gguf", temp)
        model = cpp.open_model(path)
        theirs = cpp.logits_of(model, ids, out / "adapter.gguf")
        gelu = name.startswith(("gemma", "gpt", "bloom"))
        checks.at_most(f"{name}: logits against llama.cpp with adapter.gguf",
                       relative(ist_logits(path, ids, out / "adapter.gguf"), theirs),
                       cpp.GELU if gelu else 1e-4)


def check_folder(checks, name, base, ids, out, adapted, folder):
    """The family's GGUF as a folder, and with the adapter merged into it, in transformers."""
    for what, adapter, expected in (("as a folder", None, hf_logits(hf_model(base), ids)),
                                    ("merged into a folder", out, adapted)):
        hf = folder / f"{name}-hf"
        ist("merge", "-m", base / "model.gguf", "-o", hf, "--type", "F32", "--overwrite", "-q",
            *with_adapter(adapter))
        checks.at_most(f"{name}: GGUF {what}, logits in transformers",
                       relative(hf_logits(hf_model(hf), ids), expected), 1e-5)


def check(checks, name, folder):
    base, out = folder / name, folder / (name + "-run")
    base.mkdir()
    for file in ("config.json", "model.safetensors"):
        shutil.copy(FAMILIES / name / file, base)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(FAMILIES / file, base)
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"say {i}", "completion": f"n{i} is it"}) + "\n"
                            for i in range(8)))
    ist("train", "-m", base, "-d", data, "-o", out, "--template", "none", "--targets",
        targets_of(name), "--steps", 3, "--batch", 4, "--lr", 0.02, "--warmup", 0, "--rank", 2, "--selector", "all",
        "--valid-examples", 0, "--compute", "f32", "-q")
    ids = ist_ids(base, ["say 3: n3 is"])[0]
    ours = ist_logits(base, ids, out)
    checks.true(f"{name}: the adapter does something",
                relative(ours, ist_logits(base, ids)) > 1e-3)
    model = peft_model(name, base, out)
    adapted = hf_logits(model, ids)
    checks.at_most(f"{name}: logits against PEFT", relative(ours, adapted), 1e-4)
    text = ist_greedy(base, "say 3: n3 is", 6, out)
    greedy = hf_greedy(model, ids, 6)
    ends = greedy.index(2) if 2 in greedy else len(greedy)
    checks.true(f"{name}: greedy text as PEFT's", ist_ids(base, [text])[0] == greedy[:ends], text)
    if (FAMILIES / name / "model.gguf").exists():
        check_llamacpp(checks, name, FAMILIES / name, ids, out)
        check_folder(checks, name, FAMILIES / name, ids, out, adapted, folder)


def main():
    checks, folder = Checks(), work_folder()
    for name in sys.argv[1:] or sorted(p.parent.name for p in FAMILIES.glob("*/config.json")):
        check(checks, name, folder)
    checks.done()


if __name__ == "__main__":
    main()
