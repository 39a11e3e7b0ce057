#!/usr/bin/env python3
"""Real chat templates: every *.jinja of a folder over generated conversations (system messages,
many turns, tools, Unicode), by Python's jinja2 as transformers sets it up and by `ist`'s engine.
The same text is asked for, byte for byte; where jinja2 ends with an error, `ist` must too.

    check_templates.py FOLDER     (default: $TEMPLATES; llama.cpp has some 70 in models/templates)
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from conversations import contexts, environment, render

ROOT = Path(__file__).resolve().parents[2]
RENDER = os.environ.get("RENDER", str(ROOT / "build/ci-gcc/tests/render"))
NOW = 1721901600
COUNT = 40


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("TEMPLATES")
    if not folder:
        print("skipped: no folder with *.jinja named")
        return
    os.environ["TZ"] = "UTC"
    env, passed, paths = environment(NOW), 0, sorted(Path(folder).glob("*.jinja"))
    cases = [dict(c, now=NOW) for c in contexts(5, COUNT)]
    lines = "".join(json.dumps(c) + "\n" for c in cases)
    for path in paths:
        template = path.read_text()
        want = [render(env, template, c) for c in cases]
        r = subprocess.run([RENDER, path], input=lines, text=True, capture_output=True)
        got = [json.loads(x) for x in r.stdout.splitlines()]
        bad = [i for i, (w, e) in enumerate(want)
               if i >= len(got) or got[i].get("text") != w]
        passed += not bad
        rendered = sum(w is not None for w, _ in want)
        print(f"{'MISS' if bad else 'ok  '} {path.name}: {COUNT - len(bad)} of {COUNT}, "
              f"{rendered} rendered")
        if bad:
            i = bad[0]
            print(f"     jinja2: {want[i]!r:.1500}\n     ist:    {got[i] if i < len(got) else r.stderr!r:.1500}"
                  if os.environ.get("SHOW") else f"     ist: {str(got[i])[:150] if i < len(got) else r.stderr[:100]} | jinja2: {want[i][1]}")
    print(f"{passed} of {len(paths)} templates")
    sys.exit(passed != len(paths))


if __name__ == "__main__":
    main()
