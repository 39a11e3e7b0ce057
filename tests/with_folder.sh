#!/bin/sh
# with_folder.sh SCRIPT PROGRAM [MORE...]: runs SCRIPT PROGRAM FOLDER MORE, FOLDER new and
# empty, removed afterwards. The golden files are those beside this script.
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
here=$(cd "$(dirname "$0")" && pwd)
export IST_GOLDEN_DIR="${IST_GOLDEN_DIR:-$here/golden}"
script=$1 program=$2
shift 2
case $program in /*) ;; *) program=$PWD/$program ;; esac # scripts go into the folder
sh "$script" "$program" "$folder" "$@"
