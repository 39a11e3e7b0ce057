# start.sh: how a test of the command begins. test_x.sh PROGRAM FOLDER reads it first; `ist` is the
# command then, the folder the current one.
ist=$1
cd "$2" || exit 1
export LC_ALL=C.UTF-8
failures=0

# fail WHAT [FILE]: counts a failure and shows the first lines of FILE.
fail() {
  echo "FAILED: $1"
  [ -z "$2" ] || head -n 3 "$2" | sed 's/^/  /'
  failures=$((failures + 1))
}
