#!/bin/sh
# fuzz-target.sh SECONDS TARGET: one target of fuzz.sh, which builds it and says what it leaves.
set -eu
cd "$(dirname "$0")/.."
learned=build/fuzz-corpus/$2
cases=build/fuzz-found/$2
log=build/fuzz-$2.log
mkdir -p "$learned" "$cases"
status=0
OMP_NUM_THREADS=1 build/fuzz/fuzz/fuzz_"$2" -max_total_time="$1" -max_len=16384 -timeout=60 \
  -rss_limit_mb=2048 -malloc_limit_mb=256 -print_final_stats=1 -dict=fuzz/words.dict \
  -artifact_prefix="$cases/" "$learned" fuzz/corpus/"$2" >"$log" 2>&1 || status=1
# The shell's own account of its children (user, system): the second line of `times`, which must
# not run in a subshell: that one has none.
times >>"$log"
awk -v target="$2" '
  /cov:/ { for (i = 1; i < NF; i++) if ($i == "cov:") edges = $(i + 1) }
  /number_of_executed_units/ { runs = $2 }
  END {
    split($0, t, /[ms]+ */)
    print target, runs + 0, 60 * (t[1] + t[3]) + t[2] + t[4], edges + 0
  }' "$log" >>build/fuzz-account
grep -E 'SUMMARY|ERROR: libFuzzer' "$log" || true
exit $status
