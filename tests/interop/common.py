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
    """The text that `ist generate` continues a raw prompt with."""
    return ist("generate", "-m", model, "--raw", "--temp", 0, "-n", n, "--compute", "f32", "-q",
               *with_adapter(adapter), prompt)[:-1]


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
                 lora_path=str(lora) if lora else None, verbose=False, use_mmap=lora is None)


def llama_logits(llm, ids):
    llm.reset()
    llm.eval(list(ids))
    return np.array(llm.scores[:len(ids)])


def check_greedy(checks, what, llm, ids, model, prompt, n, adapter=None, limit=0.5):
    """llama.cpp reads the prompt and what ist wrote: at every step the token that ist chose must
    be llama.cpp's likeliest, or, where the two differ, within `limit` of its logit; each of these
    is printed with its gap in both programs. (llama.cpp rounds activations to 8 bits before a
    product with quantised weights, and keys and values to f16: near ties fall either way.)"""
    text = ist_greedy(model, prompt, n, adapter)
    chosen = ist_ids(model, [text])[0]
    first = len(ids) - 1
    theirs = llama_logits(llm, ids + chosen)[first:-1]
    behind = [float(row.max() - row[t]) for row, t in zip(theirs, chosen)]
    other = [i for i, b in enumerate(behind) if b > 0]
    checks.at_most(f"{what}: {len(chosen)} tokens written by ist, {len(chosen) - len(other)} of "
                   f"them llama.cpp's first choice; logit behind the first choice", max(behind),
                   limit)
    ours = ist_logits(model, ids + chosen, adapter)[first:-1] if other else None
    for i in other:
        gap = float(ours[i].max() - ours[i][theirs[i].argmax()])
        print(f"     near tie at token {i + 1} of {len(chosen)}: llama.cpp's first choice leads "
              f"ist's by {behind[i]:.3f} in llama.cpp, and is {gap:.3f} behind it in ist",
              flush=True)


def relative(a, b):
    """Largest difference over the largest magnitude."""
    return float(np.abs(a - b).max() / np.abs(b).max())


def rms(a, b):
    """Root mean square of the difference over that of b."""
    return float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b ** 2)))
