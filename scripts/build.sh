#!/bin/sh
# build.sh PRESET [CMAKE-OPTION...]: configures (quietly) and builds one preset of CMakePresets.json.
set -eu
cd "$(dirname "$0")/.."
preset=$1
shift
mkdir -p build
log=build/$preset.configure.log
cmake --preset "$preset" "$@" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
cmake --build "build/$preset"
