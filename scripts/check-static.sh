#!/bin/sh
# check-static.sh [BUILD]: cppcheck and clang-tidy over src/ and cli/, clean or it fails. Which
# checks are off, and why: .clang-tidy, and below for cppcheck. BUILD (build/debug) holds
# compile_commands.json.
set -eu
ran=
cd "$(dirname "$0")/.."
build=${1:-build/debug}
[ -f "$build/compile_commands.json" ] || cmake --preset debug >/dev/null

# cppcheck does not understand the vector types of gcc (src/backend/cpu/simd) and does not know
# jansson (cppcheck.h); what else it is wrong about stands in cppcheck.txt.
if command -v cppcheck >/dev/null 2>&1; then
  cppcheck -q --enable=warning,performance,portability --std=c11 --inline-suppr --error-exitcode=1 \
    -D_GNU_SOURCE --include=scripts/cppcheck.h -i src/backend/cpu/simd \
    --suppressions-list=scripts/cppcheck.txt -Iinclude -Isrc -Icli src cli
  ran=1
else
  echo "cppcheck is not there: left out" >&2
fi

if command -v clang-tidy >/dev/null 2>&1; then
  find src cli -name '*.c' | sort | xargs -n 8 -P "$(getconf _NPROCESSORS_ONLN)" clang-tidy -p "$build" --quiet 2>/dev/null
  ran=1
else
  echo "clang-tidy is not there: left out" >&2
fi
[ -z "$ran" ] || echo "clean"
