#!/bin/sh
# fuzz.sh [SECONDS [TARGET...]]: runs the targets of fuzz/ with libFuzzer, SECONDS (3600) each, as
# many side by side as there are processors; all of them where none is named. What it learns is
# kept in build/fuzz-corpus and used again; inputs that crash, hang, leak or take memory out of
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

status=0
printf '%s\n' "$@" |
  xargs -n 1 -P "$(getconf _NPROCESSORS_ONLN)" sh scripts/fuzz-target.sh "$seconds" || status=1
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
[ $status = 0 ] || echo "inputs that do harm are in build/fuzz-found"
exit $status
