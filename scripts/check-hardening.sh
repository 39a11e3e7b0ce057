#!/bin/sh
# check-hardening.sh BUILD: the release build's command and library have what IST_HARDEN promises:
# position-independent, read-only relocations bound at start, no executable stack, stack
# protector, fortified calls.
set -eu
build=$1
fail() {
  echo "error: $1: $2" >&2
  exit 1
}
for file in "$build/ist" "$build/libist.so"; do
  readelf -hW "$file" | grep -q 'Type: *DYN' || fail "$file" "not position-independent"
  readelf -lW "$file" | grep -q GNU_RELRO || fail "$file" "no RELRO"
  readelf -dW "$file" | grep -q 'BIND_NOW\|Flags: .*NOW' || fail "$file" "relocations not bound at start"
  readelf -lW "$file" | grep GNU_STACK | grep -q ' RW ' || fail "$file" "executable stack"
  readelf -sW "$file" | grep -q '__stack_chk_fail' || fail "$file" "no stack protector"
  readelf -sW "$file" | grep -q '__[a-z]*_chk@' || fail "$file" "no fortified call"
done
readelf -dW "$build/ist" | grep -q 'Flags: .*PIE' || fail "$build/ist" "not a PIE"
echo "hardened: $build/ist, $build/libist.so"
