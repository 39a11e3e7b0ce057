#!/bin/sh
# fuzz.sh [SECONDS [TARGET...]]: runs the targets of fuzz/ with libFuzzer, one after the other,
# SECONDS (3600) each; all of them where none is named. What it learns is kept in
# build/fuzz-corpus and used again; inputs that crash, hang, leak or take memory out of
# proportion are left in build/fuzz-found, and the script fails. Needs clang.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-3600}
[ $# -eq 0 ] || shift
sh scripts/build.sh fuzz >/dev/null
[ $# -gt 0 ] || set -- $(ls fuzz/target_*.c | sed 's/.*target_\(.*\)\.c/\1/')

found=0
for target in "$@"; do
  learned=build/fuzz-corpus/$target
  cases=build/fuzz-found/$target
  log=build/fuzz-$target.log
  mkdir -p "$learned" "$cases"
  OMP_NUM_THREADS=1 build/fuzz/fuzz/fuzz_"$target" -max_total_time="$seconds" -max_len=16384 \
    -timeout=60 -rss_limit_mb=2048 -malloc_limit_mb=256 -print_final_stats=1 -dict=fuzz/words.dict \
    -artifact_prefix="$cases/" "$learned" fuzz/corpus/"$target" >"$log" 2>&1 || found=$((found + 1))
  awk -v target="$target" '/cov:/ { for (i = 1; i < NF; i++) if ($i == "cov:") edges = $(i + 1) }
    /number_of_executed_units/ { runs = $2 } /peak_rss_mb/ { peak = $2 }
    END { printf "%-18s %10d executions  %6d edges  %5d MB peak\n", target, runs, edges, peak }' "$log"
  grep -E 'SUMMARY|ERROR: libFuzzer' "$log" || true
done
[ $found = 0 ] || echo "inputs that do harm are in build/fuzz-found"
[ $found = 0 ]
