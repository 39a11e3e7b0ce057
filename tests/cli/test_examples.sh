#!/bin/sh
# test_examples.sh PROGRAM FOLDER: the examples do what they say, linked as a user's program is.
examples=$(dirname "$1")/examples
cd "$2" || exit 1
failures=0

# A selector in another loop: it learns, and finds the four layers that the truth uses.
"$examples/selector_only" >said || failures=$((failures + 1))
awk '$1 == "step" { loss = $4 }
  NF == 3 && $1 ~ /^[0-7]$/ {
    n++
    if ($1 < 4 && (lowest == "" || $3 < lowest)) lowest = $3
    if ($1 >= 4 && $3 > highest) highest = $3
  }
  END { exit !(n == 8 && loss < 0.001 && lowest > highest) }' said || {
  echo "FAILED: selector_only: the layers that count are not found"
  cat said
  failures=$((failures + 1))
}

# A run through the library alone.
for i in 1 2 3 4 5 6; do
  echo "{\"prompt\": \"say $i\", \"completion\": \"n$i is it\"}"
done >data.jsonl
"$examples/train_minimal" "$IST_GOLDEN_DIR/llama_tiny/llama_tiny.gguf" data.jsonl out 3 >said 2>&1
if [ $? != 0 ] || [ "$(grep -c '^step' said)" != 3 ] || [ ! -s out/adapter_model.safetensors ]; then
  echo "FAILED: train_minimal"
  cat said
  failures=$((failures + 1))
fi
[ "$failures" = 0 ]
