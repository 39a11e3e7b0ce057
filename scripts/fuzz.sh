#!/bin/sh
# fuzz.sh [SECONDS [TARGET...]]: runs the targets of fuzz/ with libFuzzer, one after the other,
# SECONDS (3600) each; all of them where none is named. What it learns is kept in
# build/fuzz-corpus and used again; inputs that crash, hang, leak or take memory out of
# proportion are left in build/fuzz-found, and the script fails. Every run adds a line to
# build/fuzz-account (target, executions, seconds of processor time, edges); the sums over all
# runs are printed at the end. Needs clang.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-3600}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- $(ls fuzz/target_*.c | sed 's/.*target_\(.*\)\.c/\1/')
[ -f build/fuzz/build.ninja ] || cmake --preset fuzz >/dev/null
cmake --build build/fuzz --target $(printf 'fuzz_%s ' "$@") >/dev/null

found=0
for target in "$@"; do
  learned=build/fuzz-corpus/$target
  cases=build/fuzz-found/$target
  log=build/fuzz-$target.log
  mkdir -p "$learned" "$cases"
  # The shell's own account of its children: the fourth line of `times` (user and system).
  cpu=$(
    OMP_NUM_THREADS=1 build/fuzz/fuzz/fuzz_"$target" -max_total_time="$seconds" -max_len=16384 \
      -timeout=60 -rss_limit_mb=2048 -malloc_limit_mb=256 -print_final_stats=1 \
      -dict=fuzz/words.dict -artifact_prefix="$cases/" "$learned" fuzz/corpus/"$target" \
      >"$log" 2>&1 || touch build/fuzz-failed
    times | awk 'END { split($1 "m" $2, t, /[ms]+/); print 60 * (t[1] + t[3]) + t[2] + t[4] }'
  )
  if [ -e build/fuzz-failed ]; then
    rm build/fuzz-failed
    found=$((found + 1))
  fi
  awk -v target="$target" -v cpu="$cpu" '
    /cov:/ { for (i = 1; i < NF; i++) if ($i == "cov:") edges = $(i + 1) }
    /number_of_executed_units/ { runs = $2 }
    END { print target, runs + 0, cpu, edges + 0 }' "$log" >>build/fuzz-account
  grep -E 'SUMMARY|ERROR: libFuzzer' "$log" || true
done
sort build/fuzz-account | awk '
  { runs[$1] += $2; cpu[$1] += $3; if ($4 > edges[$1]) edges[$1] = $4 }
  END {
    for (t in runs) {
      printf "%-18s %11d executions %8d s %6d edges\n", t, runs[t], cpu[t], edges[t] | "sort"
      all_runs += runs[t]; all_cpu += cpu[t]
    }
    close("sort")
    printf "%-18s %11d executions %8d s\n", "all", all_runs, all_cpu
  }'
[ $found = 0 ] || echo "inputs that do harm are in build/fuzz-found"
[ $found = 0 ]
