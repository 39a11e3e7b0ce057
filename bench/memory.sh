#!/bin/sh
# memory.sh MODEL.gguf FOLDER [DATA]: bench_memory with what PyTorch + PEFT (bf16) held and
# made at the same points beside it. Table on standard output, plots in FOLDER.
#
#   POINTS="..."    of PyTorch, AXIS=VALUE (those that bench_memory --measure trains, and
#                   that fit: about 1 GB more for every 250 tokens of a pass)
#   THREADS=2
#   PYTHON=...      as in compare_pytorch.sh, which makes the virtual environment
#   FULL=1          every point of ours (long)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")
[ $# -ge 2 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
model=$1
folder=$2
bench=$top/build/release/bench/bench_memory
[ -x "$bench" ] || { echo "error: $bench: not there; build it with: sh scripts/build.sh release" >&2; exit 1; }
PYTHON=${PYTHON:-$top/.cache/compare_pytorch/bin/python}
[ -x "$PYTHON" ] || { echo "error: $PYTHON: not there; bench/compare_pytorch.sh makes it" >&2; exit 1; }
points=${POINTS:-length=256 length=512 length=1024 batch=1 batch=2 batch=4 batch=8 rank=4 rank=32
  rank=128 active=0.1 active=0.25 active=0.5 active=1 selector=random selector=all}
mkdir -p "$folder"
: >"$folder/pytorch.txt"
for p in $points; do
  axis=${p%%=*}
  value=${p#*=}
  shape=4x256
  flags='--selector random'
  case $axis in
    length) shape=4x$value ;;
    batch) shape=${value}x256 ;;
    rank) flags="$flags --rank $value" ;;
    active) flags="$flags --active $value" ;;
    selector) flags="--selector $value" ;;
  esac
  TQDM_DISABLE=1 "$PYTHON" -W ignore "$here/compare_pytorch.py" "$model" "$shape" $flags \
    --threads "${THREADS:-2}" --warm 1 |
    sed -n "s/^speed *\([0-9.]*\) tokens.*peak \([0-9]*\) MB/$axis $value \2 \1/p" >>"$folder/pytorch.txt"
done
exec "$bench" --measure ${FULL:+--full} ${3:+--data "$3"} --beside "$folder/pytorch.txt" "$model" "$folder"
