"""What the interop scripts share: the command, the real model, the other programs, the checks.

Environment: IST (the command, build/release/ist), MODEL (a GGUF; scripts/get-model.sh gets the
default), THREADS (2).
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]
IST = os.environ.get("IST", str(ROOT / "build/release/ist"))
THREADS = int(os.environ.get("THREADS", "2"))
GOLDEN = ROOT / "tests/golden"

transformers.utils.logging.disable_progress_bar()
warnings.filterwarnings("ignore", category=FutureWarning)
torch.set_num_threads(THREADS)
torch.set_grad_enabled(False)


class Checks:
    """Prints every figure beside its limit; `done` exits with 1 when one was missed."""

    def __init__(self):
        self.missed = 0

    def at_most(self, what, value, limit):
        good = bool(value <= limit)  # NaN is a miss
        self.missed += not good
        print(f"{'ok  ' if good else 'MISS'} {what}: {value:.3g} (at most {limit:g})", flush=True)

    def true(self, what, good, detail=""):
        self.missed += not good
        print(f"{'ok  ' if good else 'MISS'} {what}{': ' if detail else ''}{detail}", flush=True)

    def done(self):
        print(f"{self.missed} missed" if self.missed else "all good")
        sys.exit(1 if self.missed else 0)


def model_path():
    path = os.environ.get("MODEL")
    if not path:
        path = subprocess.run(["sh", ROOT / "scripts/get-model.sh"], check=True,
                              capture_output=True, text=True).stdout.split()[-1]
    return Path(path)


def work_folder():
    """An empty folder that is removed at the end, or KEEP=FOLDER."""
    if os.environ.get("KEEP"):
        shutil.rmtree(os.environ["KEEP"], ignore_errors=True)
        Path(os.environ["KEEP"]).mkdir(parents=True)
        return Path(os.environ["KEEP"])
    folder = tempfile.TemporaryDirectory(prefix="ist-interop-")
    work_folder.kept = folder  # until the interpreter ends
    return Path(folder.name)


# ---- ist -------------------------------------------------------------------------------------


def ist(command, *args, stdin=None):
    """Standard output of the command; its error message where it fails."""
    line = [IST, command, *map(str, args), "--threads", str(THREADS)]
    run = subprocess.run(line, input=stdin, capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"{' '.join(line)}\n{run.stderr}")
    return run.stdout


def with_adapter(adapter):
    return ["--adapter", adapter] if adapter else []


def ist_ids(model, texts):
    """Token ids of each text, control tokens' texts taken as text."""
    lines = "\n".join(json.dumps(t) for t in texts)
    return [json.loads(x) for x in ist("tokenize", "-m", model, "--json-lines",
                                       stdin=lines).splitlines()]


def ist_logits(model, ids, adapter=None, compute="f32"):
    """(tokens, V)"""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "logits.safetensors"
        ist("eval", "-m", model, "--compute", compute, "--tokens", " ".join(map(str, ids)),
            "--logits-out", out, *with_adapter(adapter))
        return load_file(out)["logits"]


def ist_loss(model, data, adapter=None, *more):
    """{"loss": ..., "tokens": ..., "targets": ...} over a data file."""
    return json.loads(ist("eval", "-m", model, "-d", data, "--compute", "f32", "--json",
                          *with_adapter(adapter), *more))


def ist_greedy(model, prompt, n, adapter=None):
    """The text that `ist generate` continues a raw prompt with, every product in f32."""
    return ist("generate", "-m", model, "--raw", "--temp", 0, "-n", n, "--compute", "f32",
               "--inputs", "float", "-q", *with_adapter(adapter), prompt)[:-1]


# ---- Hugging Face ------------------------------------------------------------------------------


def hf_model(path, dtype=torch.float32):
    """A GGUF file dequantised, or a Hugging Face folder, in f32 with plain attention."""
    from transformers import AutoModelForCausalLM
    path = Path(path)
    where = dict(gguf_file=path.name) if path.is_file() else {}
    folder = path.parent if path.is_file() else path
    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype,
                                                attn_implementation="eager", **where).eval()


def hf_logits(model, ids):
    return model(torch.tensor([ids])).logits[0].float().numpy()


def hf_loss(model, samples):
    """Mean cross-entropy over every token but the first of each sample."""
    total, count = 0.0, 0
    for ids in samples:
        logits = model(torch.tensor([ids])).logits[0, :-1].double()
        total += torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]),
                                                   reduction="sum").item()
        count += len(ids) - 1
    return total / count


# ---- llama.cpp ---------------------------------------------------------------------------------


def llama_model(path, lora=None):
    from llama_cpp import Llama
    return Llama(model_path=str(path), n_ctx=512, n_batch=512, n_threads=THREADS, logits_all=True,
                 lora_path=str(lora) if lora else None, verbose=False, use_mmap=lora is None,
                 type_k=0, type_v=0)  # keys and values in F32, as ist with --compute f32


def llama_logits(llm, ids):
    llm.reset()
    llm.eval(list(ids))
    return np.array(llm.scores[:len(ids)])


# What greedy text begins with; chosen before anything was compared.
PROMPTS = ["The old harbour is", "In 1984 people believed that",
           "My grandmother always said that the best way to bake bread",
           "def fibonacci(n):\n    "]


def check_greedy(checks, what, readers, model, adapter=None, n=50):
    """`ist generate` continues each prompt by n tokens; each reader, (name, llama.cpp's model, limit),
    reads what ist wrote: at every step the token that ist chose must be its likeliest too, or within
    `limit` of its logit. Printed are how many are, and the gap of each other in both programs."""
    for prompt in PROMPTS:
        ids = ist_ids(model, [prompt])[0]
        chosen = ist_ids(model, [ist_greedy(model, prompt, n, adapter)])[0]
        if len(chosen) < n:  # it ended: so must they
            chosen.append(readers[0][1].token_eos())
        first, ours = len(ids) - 1, None
        for name, llm, limit in readers:
            theirs = llama_logits(llm, ids + chosen)[first:-1]
            behind = [float(row.max() - row[t]) for row, t in zip(theirs, chosen)]
            other = [i for i, b in enumerate(behind) if b > 0]
            checks.at_most(f"{what}{name}: {prompt.split(chr(10))[0]!r}: {len(chosen) - len(other)} of "
                           f"{len(chosen)} tokens are llama.cpp's first choice; logit behind it",
                           max(behind), limit)
            if other and ours is None:
                ours = ist_logits(model, ids + chosen, adapter)[first:-1]
            for i in other:
                gap = float(ours[i].max() - ours[i][theirs[i].argmax()])
                print(f"     token {i + 1}: llama.cpp's first choice leads ist's by "
                      f"{behind[i]:.3g} in llama.cpp, and is {gap:.3g} behind it in ist", flush=True)


def relative(a, b):
    """Largest difference over the largest magnitude."""
    return float(np.abs(a - b).max() / np.abs(b).max())


def rms(a, b):
    """Root mean square of the difference over that of b."""
    return float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b ** 2)))
