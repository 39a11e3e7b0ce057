#!/usr/bin/env python3
"""Real vocabularies: every models/ggml-vocab-NAME.gguf of llama.cpp's source archive that has
.inp and .out files beside it, its texts tokenised by `ist` against the ids llama.cpp expects.

    check_vocabs.py FOLDER        (default: $VOCABS; the archive is the source package of
                                   llama-cpp-python, folder vendor/llama.cpp/models)
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IST = os.environ.get("IST", str(ROOT / "build/release/ist"))


def tokenize(path, texts):
    lines = "".join(json.dumps(t) + "\n" for t in texts)
    r = subprocess.run([IST, "tokenize", "-m", path, "--json-lines"], input=lines, text=True,
                       capture_output=True)
    return None if r.returncode else [json.loads(x) for x in r.stdout.splitlines()], r.stderr


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("VOCABS")
    if not folder:
        print("skipped: no folder with ggml-vocab-*.gguf (see --help at the top of this file)")
        return
    missed = 0
    for path in sorted(Path(folder).glob("ggml-vocab-*.gguf")):
        inp, out = Path(f"{path}.inp"), Path(f"{path}.out")
        if not inp.exists():
            continue
        texts = inp.read_text().split("\n__ggml_vocab_test__\n")
        ids = [[int(x) for x in line.split()] for line in out.read_text().splitlines()]
        got, error = tokenize(path, texts[: len(ids)])
        if got is None:
            print(f"     {path.name}: {error.strip()}")
            continue
        bad = [(t, g, w) for t, g, w in zip(texts, got, ids) if g != w]
        missed += bool(bad)
        print(f"{'MISS' if bad else 'ok  '} {path.name}: {len(ids) - len(bad)} of {len(ids)} texts")
        for t, g, w in bad[:2]:
            print(f"     {t!r}\n       ist {g}\n       llama.cpp {w}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
