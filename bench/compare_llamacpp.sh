#!/bin/sh
# compare_llamacpp.sh MODEL.gguf [OPTIONS]: ist beside llama.cpp on the same file, by turns in
# one run: reading a prompt, writing, and (--steps N) training beside llama.cpp's reading.
# OPTIONS are those of compare_llamacpp.py: --q4-0, --threads N, --steps N, --data DATA, ...
#
#   PYTHON=...   an interpreter that has the packages of compare_llamacpp.txt; without it a
#                virtual environment is made in .cache/compare_llamacpp (llama.cpp is compiled
#                for this processor, once: some minutes, a C++ compiler and cmake)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")
[ $# -ge 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ -x "$top/build/release/ist" ] || {
  echo "error: $top/build/release/ist: not there; build it with: sh scripts/build.sh release" >&2
  exit 1
}
if [ -z "${PYTHON:-}" ]; then
  venv=$top/.cache/compare_llamacpp
  if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet -r "$here/compare_llamacpp.txt"
  fi
  PYTHON=$venv/bin/python
fi
exec "$PYTHON" "$here/compare_llamacpp.py" "$@"
