"""ist beside llama.cpp on the same file, by turns: reading a prompt, writing, and training
beside llama.cpp's reading.

    python compare_llamacpp.py MODEL.gguf [--data DATA] [--q4-0]

Tokens per second by the clock and by processor time: on a machine that others use, only
the second says something. Each figure is the best of the rounds.
"""
import argparse
import os
import re
import resource
import subprocess
import tempfile
import time

import llama_cpp

WORDS = "the river of water which holds a small box when people light the paper".split()


def text_of(words):
    """Words in an order that repeats late."""
    state, out = 1, []
    for _ in range(words):
        state = (state * 1664525 + 1013904223) % 2**32
        out.append(WORDS[(state >> 16) % len(WORDS)])
    return " ".join(out)


def ist_run(a, model, tokens):
    """Seconds of processor time of one `ist generate`, and its two speeds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [a.ist, "generate", "-m", model, "--threads", str(a.threads), "--raw", "-n", str(tokens),
         text_of(a.words)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = re.search(r"prompt: (\d+) tokens, (\d+) tokens/s; text: (\d+) tokens, ([\d.]+)",
                      done.stderr)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return cpu, *(float(x) for x in found.groups())


def ist_speeds(a, model):
    """Prompt and text: by the clock, by processor time. Opening the model counts with the
    prompt by processor time, not by the clock."""
    short, n, prompt, _, _ = ist_run(a, model, 1)
    long, _, again, written, text = ist_run(a, model, a.tokens)
    return (max(prompt, again), n / short), (text, (written - 1) / (long - short)), int(n)


def llama_speeds(a, llama):
    ids = llama.tokenize(text_of(a.words).encode(), add_bos=False)
    llama.reset()
    wall, cpu = time.perf_counter(), time.process_time()
    llama.eval(ids)
    prompt = (len(ids) / (time.perf_counter() - wall), len(ids) / (time.process_time() - cpu))
    wall, cpu = time.perf_counter(), time.process_time()
    for i in range(a.tokens - 1):
        llama.eval([ids[i % len(ids)]])
    text = ((a.tokens - 1) / (time.perf_counter() - wall),
            (a.tokens - 1) / (time.process_time() - cpu))
    return prompt, text, len(ids)


def requantised(model, path):
    p = llama_cpp.llama_model_quantize_default_params()
    p.ftype, p.allow_requantize = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, True
    llama_cpp.llama_model_quantize(model.encode(), path.encode(), p)
    return path


def best(found):
    return [max(column) for column in zip(*found)]


def compare(a, name, model):
    llama = llama_cpp.Llama(model, n_ctx=4096, n_batch=512, n_threads=a.threads,
                            n_threads_batch=a.threads, verbose=False)
    llama_speeds(a, llama)
    ours, theirs = [], []
    for _ in range(a.rounds):
        ours.append(ist_speeds(a, model))
        theirs.append(llama_speeds(a, llama))
    tokens = ours[0][2], theirs[0][2]
    if tokens[0] != tokens[1]:
        raise SystemExit(f"error: {tokens[0]} tokens beside {tokens[1]}")
    for i, what in enumerate(("prompt", "text")):
        mine, other = best([r[i] for r in ours]), best([r[i] for r in theirs])
        print(f"{name:<8} {what:<8} {mine[0]:>10.1f} {other[0]:>10.1f} {mine[0] / other[0]:>6.2f} "
              f"{mine[1]:>12.1f} {other[1]:>10.1f} {mine[1] / other[1]:>6.2f}", flush=True)
    return best([r[0] for r in theirs])


def train(a, reading):
    """Training of ist beside the reading of llama.cpp above."""
    done = subprocess.run([a.bench, "--steps", str(a.steps), "--threads", str(a.threads),
                           *(["--data", a.data] if a.data else []), a.model],
                          stdout=subprocess.PIPE, text=True, check=True).stdout
    speed = float(re.search(r"^speed *([\d.]+) tokens", done, re.M)[1])
    print(f"training: {speed:.1f} tokens/s, {speed / reading:.2f} x what llama.cpp reads of this "
          f"file ({reading:.1f}), by the clock")
    for line in done.splitlines():
        if line.startswith("warning"):
            print(" ", line)


def main():
    top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("model")
    p.add_argument("--data")
    p.add_argument("--q4-0", action="store_true", help="also the model in llama.cpp's fastest type")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--words", type=int, default=300)
    p.add_argument("--tokens", type=int, default=101)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--steps", type=int, default=0, help="training steps to time; 0: none")
    p.add_argument("--ist", default=f"{top}/build/release/ist")
    p.add_argument("--bench", default=f"{top}/build/release/bench/bench_train_step")
    a = p.parse_args()
    print(f"llama-cpp-python {llama_cpp.__version__}, {a.threads} threads, {a.words} words, "
          f"{a.tokens} tokens, best of {a.rounds}")
    print(f"{'':<17} {'-- tokens/s by the clock --':>28} {'-- per processor second --':>30}")
    print(f"{'file':<8} {'':<8} {'ist':>10} {'llama.cpp':>10} {'ratio':>6} {'ist':>12} "
          f"{'llama.cpp':>10} {'ratio':>6}")
    reading = compare(a, "as it is", a.model)
    if a.q4_0:
        with tempfile.TemporaryDirectory() as folder:
            compare(a, "Q4_0", requantised(a.model, f"{folder}/q4_0.gguf"))
    if a.steps:
        train(a, reading[0])


main()
