#!/bin/sh
# mutate.sh [NUMBER [SEED]]: how many small defects do the tests notice? NUMBER (40) lines of
# src/select, src/train, src/format and src/ops are changed one at a time (a comparison the other
# way round, a sum that is a difference, 1 that is 2, a condition that is its opposite, ...) in a
# copy of the tree; the room's tests are built and run. Prints what survived, and the score.
# Changes that do not compile do not count; some that survive change nothing that could be seen.
set -eu
cd "$(dirname "$0")/.."
number=${1:-40}
seed=${2:-1}
copy=$PWD/build/mutation
mkdir -p "$copy"
git ls-files | grep -v '^docs/' | tar cf - -T - | tar xf - -C "$copy"
export CCACHE_BASEDIR="$copy" CCACHE_NOHASHDIR=1 OMP_NUM_THREADS=1
(cd "$copy" && cmake --preset ci-gcc -DIST_WERROR=OFF >/dev/null)
build=$copy/build/ci-gcc

# Every place where a change applies: file, line, what stands there, what will.
grep -n '' src/select/*.c src/train/*.c src/format/*.c src/ops/*.c | awk '
  function add(from, to,   i) {
    i = index(code, from)
    if (i) print file "\t" line "\t" from "\t" to
  }
  {
    split($0, part, ":")
    file = part[1]; line = part[2]
    code = substr($0, length(file) + length(line) + 3)
    if (code ~ /^ *(\/\*|\*|#)/ || code ~ /IST_ASSERT|ist_fail|ist_log|"/ || code !~ /;|\{|\)/) next
    if (code !~ /^ /) next # declarations and prototypes
    add(" < ", " <= "); add(" <= ", " < "); add(" > ", " >= "); add(" >= ", " > ")
    add(" == ", " != "); add(" != ", " == "); add(" && ", " || "); add(" || ", " && ")
    add(" + ", " - "); add(" - ", " + "); add(" * ", " + "); add(" / ", " * ")
    add("++", "--"); add(" += ", " -= "); add("+ 1", "+ 2"); add("- 1", "- 0"); add("return IST_OK", "return IST_ERR_INTERNAL")
    add("if (", "if (!"); add("true", "false"); add("false", "true"); add(" = 0", " = 1")
  }' | awk -v seed="$seed" 'BEGIN { srand(seed) } { print rand() "\t" $0 }' | sort | cut -f 2- >"$copy/places"

# The programs that look into a room.
tests_of() {
  case $1 in
    ops) ls tests/backend/test_reference_*.c ;;
    *) ls tests/"$1"/test_*.c ;;
  esac | sed 's/.*\/\(.*\)\.c/\1/'
}

killed=0 survived=0 tried=0
while IFS="$(printf '\t')" read -r file line from to; do
  [ $((killed + survived)) -lt "$number" ] || break
  tried=$((tried + 1))
  room=$(echo "$file" | cut -d/ -f2)
  FROM=$from TO=$to awk -v line="$line" 'NR == line {
      i = index($0, ENVIRON["FROM"])
      $0 = substr($0, 1, i - 1) ENVIRON["TO"] substr($0, i + length(ENVIRON["FROM"]))
    } { print }' "$file" >"$copy/$file"
  verdict=survived
  if ! ninja -C "$build" $(tests_of "$room") >"$copy/log" 2>&1; then
    verdict=
  else
    for test in $(tests_of "$room"); do
      (cd "$build/tests" && timeout 200 "./$test") >"$copy/log" 2>&1 || verdict=killed
      [ $verdict = survived ] || break
    done
  fi
  cp "$file" "$copy/$file"
  [ -n "$verdict" ] || continue
  eval "$verdict=\$(($verdict + 1))"
  echo "$verdict  $file:$line  '$from' -> '$to'"
done <"$copy/places"
echo "score: $killed of $((killed + survived)) noticed ($((tried - killed - survived)) did not compile)"
