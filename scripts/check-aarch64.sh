#!/bin/sh
# check-aarch64.sh [TEST-PATTERN]: builds the library and its unit tests for aarch64 Linux with
# Debian's cross compiler and runs them under qemu-user. The libraries come from Debian's arm64
# packages, unpacked under build/aarch64-root: nothing of this system is changed. Needs
# gcc-aarch64-linux-gnu and qemu-user. There is no oneDNN: our own kernels do every product.
set -eu
cd "$(dirname "$0")/.."
top=$(pwd) root=$(pwd)/build/aarch64-root
# What needs the real model, the command's scripts, or minutes under emulation.
skip='test_screen|^cli\.|test_kill|test_signals|test_trainer|test_cpu_products|test_cpu_attention'
skip="$skip|test_base_type"
pattern=${1-.}

for program in aarch64-linux-gnu-gcc qemu-aarch64 apt-get dpkg-deb cmake ninja; do
  command -v "$program" >/dev/null 2>&1 || {
    echo "error: $program is missing" >&2
    echo "hint: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user" >&2
    exit 1
  }
done

# A package index and packages of our own.
if [ ! -e "$root/ready" ]; then
  mkdir -p "$root/apt/lists/partial" "$root/apt/archives/partial" "$root/deb"
  : >"$root/apt/status"
  apt="apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64
    -o Dir::State=$root/apt -o Dir::State::status=$root/apt/status -o Dir::Cache=$root/apt
    -o APT::Sandbox::User=root"
  $apt update
  (cd "$root/deb" && $apt download libjansson-dev libjansson4 libpcre2-dev libpcre2-8-0 \
    libutf8proc-dev libutf8proc2 libxxhash-dev libxxhash0 zlib1g-dev zlib1g libzstd-dev libzstd1 \
    libcmocka-dev libcmocka0)
  for package in "$root"/deb/*.deb; do dpkg-deb -x "$package" "$root"; done
  : >"$root/ready"
fi

cmake -S . -B build/aarch64 -G Ninja -DCMAKE_BUILD_TYPE=Release \
  -DCMAKE_TOOLCHAIN_FILE="$top/cmake/aarch64.cmake" >/dev/null
export QEMU_LD_PREFIX=/usr/aarch64-linux-gnu OMP_NUM_THREADS=2
export QEMU_SET_ENV="LD_LIBRARY_PATH=$root/usr/lib/aarch64-linux-gnu:$root/lib/aarch64-linux-gnu"
ninja -C build/aarch64
ctest --test-dir build/aarch64 -j"$(nproc)" --output-on-failure -R "$pattern" -E "$skip"
