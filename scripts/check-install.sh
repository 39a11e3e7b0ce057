#!/bin/sh
# check-install.sh BUILD: installs into a folder of the build and compiles the
# examples against that with pkg-config, once with libist.so and once with libist.a.
set -eu
cd "$(dirname "$0")/.."
stage=$PWD/$1/stage
rm -rf "$stage"
cmake --install "$1" --prefix "$stage" >/dev/null
libs=$(dirname "$(find "$stage" -name libist.a)")
for file in include/ist.h bin/ist share/man/man1/ist.1 share/bash-completion/completions/ist; do
  [ -s "$stage/$file" ] || { echo "error: make install left no $file" >&2; exit 1; }
done
PKG_CONFIG_PATH=$libs/pkgconfig
export PKG_CONFIG_PATH
shared=$(pkg-config --cflags --libs ist)
static=$(pkg-config --static --cflags --libs ist | sed 's/-list /-l:libist.a /')
for example in examples/*.c; do
  program=$stage/$(basename "$example" .c)
  # shellcheck disable=SC2086
  gcc "$example" -o "$program" $shared -Wl,-rpath,"$libs" -lm
  # shellcheck disable=SC2086
  gcc "$example" -o "$program-static" $static -lm
done
"$stage/selector_only" >"$stage/shared.txt"
"$stage/selector_only-static" >"$stage/static.txt"
cmp "$stage/shared.txt" "$stage/static.txt"
[ "$(ldd "$stage/selector_only-static" | grep -c libist)" -eq 0 ]
"$stage/bin/ist" --version
