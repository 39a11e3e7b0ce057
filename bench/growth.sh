#!/bin/sh
# growth.sh MODEL.gguf: how the time of a step grows with tokens, length, layers, rank and
# active layers, beside the operations that the declarations count for it. Where the rate
# (GFLOP/s) stays, time grows as declared. Seconds are processor time of one thread, which
# others on the machine disturb little.
#
#   STEPS=2   steps that are timed for every line
#   BENCH=build/release/bench/bench_train_step
#   IST=build/release/ist   which makes the models of other depths
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
[ $# = 1 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
bench=${BENCH:-$top/build/release/bench/bench_train_step}
ist=${IST:-$top/build/release/ist}
model=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
awk 'BEGIN { srand(1); for (i = 0; i < 64; i++) { printf "{\"text\": \""
  for (j = 0; j < 2400; j++) printf "%s ", substr("the of a box is it we go on up as in to be at my so do", 1 + 3 * int(rand() * 17), 2)
  print "\"}" } }' >"$work/long.jsonl"

# line WHAT OPTIONS...
line() {
  what=$1
  shift
  "$bench" --steps "${STEPS:-2}" --warm 1 --threads 1 "$@" "$model" >"$work/out"
  awk -v what="$what" '
    /^steps/ { for (i = 1; i < NF; i++) if ($(i + 1) == "tokens") { n = $i; break } }
    /^cpu/ { s = $2 }
    /^achieved/ { each = $4 }
    END { printf "%-28s %8d %10.1f %8.3f %10.1f\n", what, n, n * each, s, n * each / s }' "$work/out"
}

printf '%-28s %8s %10s %8s %10s\n' setting tokens GFLOP seconds GFLOP/s
for b in 4 8 16 32; do line "batch $b" --selector fixed:0 --batch $b; done
for r in 8 32 128; do line "rank $r" --selector fixed:0 --rank $r; done
for a in 29 15 0; do line "backward down to layer $a" --selector "fixed:$a"; done
line "all layers active" --selector all
for t in 256 1024 2048; do
  line "2,048 tokens as $((2048 / t)) x $t" --selector fixed:0 --data "$work/long.jsonl" --max-tokens $t --batch $((2048 / t))
done
for l in 10 20 30; do
  model=$work/deep.gguf
  "$ist" make-model -q --shape smollm2-135m --layers $l --type Q4_1 --overwrite -o "$model"
  line "a model of $l layers" --selector fixed:0
done
