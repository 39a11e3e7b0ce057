#!/bin/sh
# loss_types.sh MODEL.gguf DATA: the training loss in bf16 beside that in f32, the same run
# otherwise (the paper's settings, small batches): means over windows of 20 steps, and how
# far apart they are.
#
#   STEPS=200  BATCH=4  TOKENS=64 (longest sample)  THREADS=2  IST=build/release/ist
#   SELECTOR=random   the layers of both runs are then the same draws
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
[ $# = 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
ist=${IST:-$top/build/release/ist}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
for type in f32 bf16; do
  "$ist" train -q --threads "${THREADS:-2}" -m "$1" -d "$2" -o "$work/$type" --preset paper --compute "$type" \
    --selector "${SELECTOR:-random}" \
    --steps "${STEPS:-200}" --batch "${BATCH:-4}" --max-tokens "${TOKENS:-64}" --warmup 20 \
    --valid-examples 0 --save-every 0 >/dev/null
  sed -n 's/.*"loss": *\([0-9.e+-]*\).*/\1/p' "$work/$type/metrics.jsonl" >"$work/$type.loss"
done
paste "$work/f32.loss" "$work/bf16.loss" | awk '
  BEGIN { printf "%-10s %10s %10s %10s\n", "steps", "f32", "bf16", "apart %" }
  {
    f += $1; b += $2; all_f += $1; all_b += $2; n++
    if (n % 20) next
    apart = 100 * (b - f) / f
    if (apart < 0) apart = -apart
    if (apart > most) most = apart
    printf "%4d-%-5d %10.4f %10.4f %10.3f\n", n - 19, n, f / 20, b / 20, apart
    f = b = 0
  }
  END {
    printf "mean       %10.4f %10.4f %10.3f\nlargest distance of a window: %.3f %%\n", all_f / n, all_b / n,
      100 * (all_b - all_f) / all_f, most
    exit !(most < 1)
  }'
