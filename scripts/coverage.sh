#!/bin/sh
# coverage.sh [CTEST-OPTION...]: runs the tests in a build that counts (gcc's gcov), and prints
# which share of the lines and branches of src/ they reach: a line a room, then the files below
# 80 %. Lines that no test reaches stand in build/coverage/missed.txt.
set -eu
cd "$(dirname "$0")/.."
sh scripts/build.sh coverage >/dev/null
build=build/coverage
find $build -name '*.gcda' -delete
ctest --test-dir $build -j "$(getconf _NPROCESSORS_ONLN)" --timeout 1800 "$@" >$build/tests.log ||
  tail -n 20 $build/tests.log

# One source may be in several objects (src/ops in float and double, the kernels once per
# instruction set): a line counts as reached when it was in any of them.
find $build -name '*.gcda' | xargs gcov -t -b -c 2>/dev/null | awk -v missed=$build/missed.txt '
  /^ *-: *0:Source:/ {
    file = $0
    sub(/.*0:Source:/, "", file)
    keep = sub(/^.*src\//, "", file) && file !~ /^usr\//
    next
  }
  !keep { next }
  /^branch/ {
    key = file SUBSEP line SUBSEP $2
    branch[key] = branch[key] || ($3 == "taken" && $4 > 0)
    next
  }
  match($0, /^ *[^: ]+: *[0-9]+:/) {
    split($0, part, ":")
    count = part[1]
    line = part[2] + 0
    gsub(/ /, "", count)
    if (count == "-") next
    key = file SUBSEP line
    hit[key] = hit[key] || count + 0 > 0
  }
  function room(name) { sub(/\/[^\/]*$/, "", name); return name }
  function share(n, of) { return of ? 100 * n / of : 100 }
  END {
    for (key in hit) {
      split(key, part, SUBSEP)
      f = part[1]
      lines[f]++; of[room(f)]++; all++
      if (hit[key]) { reached[f]++; got[room(f)]++; ok++ }
      else print f ":" part[2] >missed
    }
    for (key in branch) {
      split(key, part, SUBSEP)
      r = room(part[1])
      branches[r]++; all_branches++
      if (branch[key]) { taken[r]++; all_taken++ }
    }
    for (r in of)
      printf "%-18s %6.1f %% of %6d lines %6.1f %% of %6d branches\n", r, share(got[r], of[r]),
        of[r], share(taken[r], branches[r]), branches[r] | "sort"
    close("sort")
    printf "%-18s %6.1f %% of %6d lines %6.1f %% of %6d branches\n", "src", share(ok, all), all,
      share(all_taken, all_branches), all_branches
    for (f in lines)
      if (share(reached[f], lines[f]) < 80)
        printf "  %-30s %5.1f %% of %d lines\n", f, share(reached[f], lines[f]), lines[f] | "sort"
  }'
