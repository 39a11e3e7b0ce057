#!/bin/sh
# compare_pytorch.sh MODEL.gguf [DATA]: training speed of ist beside PyTorch + PEFT, the same
# work (the IST paper's settings) on the same token ids, by turns in one run.
#
#   STEPS=13        steps that are timed, after 2 that are not (a probe falls into every 10)
#   THREADS=2
#   CONFIGS="..."   of: ist-f32 ist-bf16 all-bf16 random-bf16 all-bf16-checkpointing
#   PYTHON=...      an interpreter that has the packages of compare_pytorch.txt; without it
#                   a virtual environment is made in .cache/compare_pytorch (3 GB, once)
#   PREFIX="..."    a command before every timed program, such as taskset
#   BENCH=...       bench_train_step (build/release/bench/bench_train_step)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")
[ $# -ge 1 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
model=$1
data=${2:+--data $2}
steps=${STEPS:-13}
threads=${THREADS:-2}
configs=${CONFIGS:-ist-f32 ist-bf16 all-bf16 random-bf16 all-bf16-checkpointing}
bench=${BENCH:-$top/build/release/bench/bench_train_step}
[ -x "$bench" ] || { echo "error: $bench: not there; build it with: sh scripts/build.sh release" >&2; exit 1; }
if [ -z "${PYTHON:-}" ]; then
  venv=$top/.cache/compare_pytorch
  if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet -r "$here/compare_pytorch.txt"
  fi
  PYTHON=$venv/bin/python
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

speed() { sed -n 's/^speed *\([0-9.]*\) tokens.*/\1/p' "$1"; }

# ours CONFIG -> $work/ours.CONFIG, $work/batches
ours() {
  selector=${1%%-*}
  rest=${1#*-}
  ${PREFIX:-} "$bench" $data --selector "$selector" --compute "${rest%%-*}" --steps "$steps" \
    --threads "$threads" --batches "$work/batches" "$model" >"$work/ours.$1"
}

theirs() {
  selector=${1%%-*}
  rest=${1#*-}
  flags=
  case $1 in *-checkpointing) flags=--checkpointing ;; esac
  TQDM_DISABLE=1 ${PREFIX:-} "$PYTHON" -W ignore "$here/compare_pytorch.py" "$model" "$work/batches" \
    --selector "$selector" --dtype "${rest%%-*}" --threads "$threads" $flags >"$work/theirs.$1"
}

first=1
best=0
for c in $configs; do
  ours "$c"
  theirs "$c"
  if [ $first = 1 ]; then
    sed -n '1,4p' "$work/ours.$c"
    "$PYTHON" -c 'import torch, peft, transformers as t; print("python    torch", torch.__version__, "peft", peft.__version__, "transformers", t.__version__)'
    printf '\n%-24s %14s %14s %7s   %s\n' configuration 'ist tokens/s' 'PyTorch' ratio 'peak MB, losses first and last: ist | PyTorch'
    first=0
  fi
  a=$(speed "$work/ours.$c")
  b=$(speed "$work/theirs.$c")
  mine=$(sed -n 's/^peak *\([0-9]*\) MB.*/\1/p' "$work/ours.$c")
  losses=$(sed -n 's/^losses *//p' "$work/ours.$c")
  other=$(sed -n 's/.*losses \([0-9.]* [0-9.]*\), peak \([0-9]*\) MB/\2 \1/p' "$work/theirs.$c")
  printf '%-24s %14s %14s %7s   %s %s | %s\n' "$c" "$a" "$b" \
    "$(echo "$a $b" | awk '{printf "%.2f", $1 / $2}')" "$mine" "$losses" "$other"
  sed -n 's/^warning/  warning/p' "$work/ours.$c"
  best=$(echo "$best $b" | awk '{print ($1 > $2) ? $1 : $2}')
done
for c in $configs; do
  echo "$c $(speed "$work/ours.$c") $best" |
    awk '{printf "%-24s %.2f x the best PyTorch figure (%s tokens/s)\n", $1, $2 / $3, $3}'
done
