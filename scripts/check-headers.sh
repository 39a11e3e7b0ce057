#!/bin/sh
# check-headers.sh: ist.h compiles alone, as C11, C17 and C++; so does every
# header of a room, as C17.
set -eu
cd "$(dirname "$0")/.."
status=0
check() {
  header=$1
  shift
  printf '#include "%s"\n' "$header" | "$@" -Wall -Wextra -Werror -Iinclude -Isrc \
    -D_GNU_SOURCE -fsyntax-only - || { echo "error: $header: $*" >&2; status=1; }
}
for standard in c11 c17; do check ist.h gcc -x c -std=$standard -pedantic; done
check ist.h g++ -x c++ -std=c++11
n=0
for header in $(cd src && find . -name '*.h' | sort); do
  check "${header#./}" gcc -x c -std=gnu17
  n=$((n + 1))
done
echo "ist.h and $n headers of rooms compile alone"
exit $status
