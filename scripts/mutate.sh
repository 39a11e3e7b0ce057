#!/bin/sh
# mutate.sh [NUMBER [SEED [ROOM...]]]: how many small defects do the tests notice? In each of the
# rooms (select, train, format, ops) NUMBER (25) lines are changed one at a time (a comparison the
# other way round, a sum that is a difference, 1 that is 2, a condition that is its opposite, ...)
# in a copy of the tree; the room's tests are built and run, the quick ones first. Prints what
# survived, and a score for each room. Changes that do not compile do not count; some that
# survive change nothing that could be seen.
set -eu
cd "$(dirname "$0")/.."
number=${1:-25}
seed=${2:-1}
[ $# -le 2 ] || shift 2
[ $# -gt 0 ] && [ -d "src/$1" ] || set -- select train format ops
copy=$PWD/build/mutation
mkdir -p "$copy"
# -m: as new, since a run that was stopped may have left a changed file and what was built of it.
git ls-files | grep -v '^docs/' | tar cf - -T - | tar xmf - -C "$copy"
export CCACHE_BASEDIR="$copy" CCACHE_NOHASHDIR=1 OMP_NUM_THREADS=1
(cd "$copy" && cmake --preset ci-gcc -DIST_WERROR=OFF >/dev/null)
build=$copy/build/ci-gcc

# Every place of a room where a change applies: file, line, what stands there, what will.
places_of() {
  grep -n '' src/"$1"/*.c | awk '
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
    }' | awk -v seed="$seed" 'BEGIN { srand(seed) } { print rand() "\t" $0 }' | sort | cut -f 2-
}

# The programs that look into a room: the quick ones first, those that take many seconds last.
tests_of() {
  slow='test_plan test_golden test_method_goldens test_resume test_methods test_decoder_grad test_steps'
  case $1 in
    ops) ls tests/backend/test_reference_*.c tests/train/test_decoder_grad.c ;;
    *) ls tests/"$1"/test_*.c ;;
  esac | sed 's/.*\/\(.*\)\.c/\1/' | awk -v slow=" $slow " '
    index(slow, " " $1 " ") { late = late $1 "\n"; next } { print } END { printf "%s", late }'
}

# Do the room's tests pass as they are? Those that fail are named, and would "notice" everything.
check_unchanged() {
  ninja -C "$build" $(tests_of "$1") >"$copy/log" 2>&1 || { tail -n 20 "$copy/log"; exit 1; }
  for test in $(tests_of "$1"); do
    (cd "$build/tests" && timeout 300 "./$test") >"$copy/log" 2>&1 && continue
    echo "src/$1: $test fails without any change" >&2
    exit 1
  done
}

# FILE LINE FROM TO ROOM: killed, survived, or nothing where it does not compile.
verdict_of() {
  FROM=$3 TO=$4 awk -v line="$2" 'NR == line {
      i = index($0, ENVIRON["FROM"])
      $0 = substr($0, 1, i - 1) ENVIRON["TO"] substr($0, i + length(ENVIRON["FROM"]))
    } { print }' "$1" >"$copy/$1"
  if ninja -C "$build" $(tests_of "$5") >"$copy/log" 2>&1; then
    verdict=survived
    for test in $(tests_of "$5"); do
      (cd "$build/tests" && timeout 300 "./$test") >"$copy/log" 2>&1 || verdict=killed
      [ $verdict = survived ] || break
    done
    echo $verdict
  fi
  cp "$1" "$copy/$1"
}

for room in "$@"; do
  check_unchanged "$room"
  killed=0 survived=0 tried=0
  places_of "$room" >"$copy/places"
  while IFS="$(printf '\t')" read -r file line from to; do
    [ $((killed + survived)) -lt "$number" ] || break
    tried=$((tried + 1))
    verdict=$(verdict_of "$file" "$line" "$from" "$to" "$room" </dev/null)
    [ -n "$verdict" ] || continue
    eval "$verdict=\$(($verdict + 1))"
    echo "$verdict  $file:$line  '$from' -> '$to'"
  done <"$copy/places"
  echo "src/$room: $killed of $((killed + survived)) noticed ($((tried - killed - survived)) did not compile)"
done
