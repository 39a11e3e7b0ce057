#!/bin/sh
# with_folder.sh SCRIPT PROGRAM: runs SCRIPT PROGRAM FOLDER, FOLDER new and empty,
# removed afterwards.
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
sh "$1" "$2" "$folder"
