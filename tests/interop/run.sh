#!/bin/sh
# run.sh: every check_*.py of this folder with $PYTHON (python3); fails when one does.
cd "$(dirname "$0")" || exit 1
missed=0
for script in check_*.py; do
  echo "== $script"
  "${PYTHON:-python3}" "$script" || missed=$((missed + 1))
done
[ $missed = 0 ] || echo "$missed scripts missed"
[ $missed = 0 ]
