#!/bin/sh
# install-deps.sh build|test|demo|check: makes sure that what the goal needs is there.
# On Debian and its relatives missing packages are installed when this runs as
# root; otherwise the line to run is printed and the script fails. "check" is for what
# CONTRIBUTING.md lists beside `make test`: static analysis, valgrind, fuzzing, the thread
# sanitizer.
set -eu

build="gcc libc6-dev cmake ninja-build pkg-config libdnnl-dev libjansson-dev libpcre2-dev
  libutf8proc-dev libxxhash-dev zlib1g-dev libzstd-dev"
tests="libcmocka-dev"
case ${1-} in
  build) want=$build ;;
  test) want="$build $tests g++ clang binutils" ;;
  demo) want="$build ca-certificates python3 python3-pip" ;;
  check) want="$build $tests clang libclang-rt-dev libomp-dev cppcheck clang-tidy valgrind" ;;
  *) echo "usage: install-deps.sh build|test|demo|check" >&2; exit 2 ;;
esac

# Packages whose program may have come from elsewhere count as there.
program_of() {
  case $1 in
    gcc | cmake | clang | pkg-config | python3 | cppcheck | clang-tidy | valgrind) echo "$1" ;;
    g++) echo g++ ;;
    ninja-build) echo ninja ;;
    binutils) echo nm ;;
  esac
}
header_of() {
  case $1 in
    libc6-dev) echo stdlib.h ;;
    libdnnl-dev) echo dnnl.h ;;
    libjansson-dev) echo jansson.h ;;
    libpcre2-dev) echo pcre2posix.h ;;
    libutf8proc-dev) echo utf8proc.h ;;
    libxxhash-dev) echo xxhash.h ;;
    zlib1g-dev) echo zlib.h ;;
    libzstd-dev) echo zstd.h ;;
    libcmocka-dev) echo cmocka.h ;;
  esac
}
clang_links() { # FLAG
  echo 'int main(void) { return 0; }' | clang "$1" -x c -o /dev/null - >/dev/null 2>&1
}
is_there() {
  if [ "$1" = python3-pip ]; then
    python3 -m pip --version >/dev/null 2>&1
  elif [ "$1" = ca-certificates ]; then
    [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -e /etc/pki/tls/certs/ca-bundle.crt ]
  elif [ "$1" = libclang-rt-dev ]; then
    clang_links -fsanitize=fuzzer-no-link,address
  elif [ "$1" = libomp-dev ]; then
    clang_links -fopenmp
  elif [ -n "$(program_of "$1")" ]; then
    command -v "$(program_of "$1")" >/dev/null 2>&1
  else
    command -v gcc >/dev/null 2>&1 &&
      printf '#include <stddef.h>\n#include <stdarg.h>\n#include <setjmp.h>\n#include <stdint.h>\n#include <%s>\n' \
        "$(header_of "$1")" | gcc -E -x c -o /dev/null - 2>/dev/null
  fi
}

missing=""
for package in $want; do
  is_there "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
  echo "error: missing (by their Debian names):$missing" >&2
  echo "hint: install them with this system's package manager" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "error: missing packages:$missing" >&2
  echo "hint: sudo apt-get install --no-install-recommends$missing" >&2
  exit 1
fi
echo "installing:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null
