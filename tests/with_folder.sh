#!/bin/sh
# with_folder.sh SCRIPT PROGRAM: runs SCRIPT PROGRAM FOLDER. FOLDER is new and
# empty, the one above it is the test's own; both are removed afterwards.
above=$(mktemp -d) || exit 1
trap 'rm -rf "$above"' EXIT
mkdir "$above/work" && sh "$1" "$2" "$above/work"
