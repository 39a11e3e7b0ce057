#!/bin/sh
# check-symbols.sh BUILD: every symbol that libist gives to a program's linker
# begins with ist_ (the shared library's exports, and all globals of libist.a).
set -eu
build=$1
status=0
# An empty list would pass for the wrong reason, so ist_version must be in it.
check() {
  what=$1
  symbols=$2
  case " $(echo "$symbols" | tr '\n' ' ')" in
    *" ist_version "*) ;;
    *) echo "error: $what: ist_version is not among its symbols" >&2; status=1 ;;
  esac
  bad=$(echo "$symbols" | grep -v '^ist_' || true)
  if [ -n "$bad" ]; then
    echo "error: $what: symbols that do not begin with ist_: $(echo "$bad" | tr '\n' ' ')" >&2
    status=1
  fi
  echo "$what: $(echo "$symbols" | wc -l) symbols"
}
check libist.so "$(nm -D --defined-only "$build/libist.so" | awk '{ print $NF }' | sort -u)"
check libist.a "$(nm -g --defined-only "$build/libist.a" 2>/dev/null |
  awk 'NF >= 3 { print $NF }' | sort -u)"
exit $status
