#!/bin/sh
# test.sh: everything that CI runs. Needs no network once the packages are there,
# no Python and no model.
set -eu
cd "$(dirname "$0")/.."
say() { printf '\n== %s\n' "$*"; }

sh scripts/install-deps.sh test

say "gcc and clang, warnings are errors"
sh scripts/build.sh ci-gcc
sh scripts/build.sh ci-clang

if pkg-config --exists openblas; then
  say "products by CBLAS, without oneDNN"
  cmake --preset cblas >build/cblas.configure.log
  cmake --build build/cblas --target test_cpu_products test_cpu_stored
  build/cblas/tests/test_cpu_products
fi

say "symbols, headers, hardening"
sh scripts/check-hardening.sh build/ci-gcc
sh scripts/check-symbols.sh build/ci-gcc
sh scripts/check-headers.sh

say "tests under the address and undefined-behaviour sanitizers"
sh scripts/build.sh debug
jobs=$(getconf _NPROCESSORS_ONLN)
ctest --preset debug -j "$jobs"

say "examples, and the library as installed"
build/ci-gcc/examples/selector_only
sh scripts/check-install.sh build/ci-gcc

say "tests"
ctest --preset ci-gcc -j "$jobs"
