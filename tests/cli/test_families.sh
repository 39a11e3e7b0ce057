#!/bin/sh
# test_families.sh PROGRAM FOLDER: every tiny family through the command: a Hugging Face folder
# is trained (experts too), measured and written with, and its GGUF takes the adapter.
. "$(dirname "$0")/start.sh"
families=$IST_GOLDEN_DIR/families

# run FAMILY ARGUMENTS...: counts a failure and shows what was said.
run() {
  family=$1
  shift
  "$ist" "$@" -q --threads 1 >said 2>&1 </dev/null && return 0
  fail "$family: ist $*" said
  return 1
}

for i in 1 2 3 4 5 6; do
  echo "{\"prompt\": \"say $i\", \"completion\": \"n$i is it\"}"
done >data.jsonl

for config in "$families"/*/config.json; do
  from=$(dirname "$config")
  name=$(basename "$from")
  targets=all-linear
  case $name in
    mixtral) targets=q,k,v,o,w1,w2,w3 ;;
    *_moe*) targets=q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj ;;
  esac
  mkdir model
  cp "$config" "$from/model.safetensors" "$families"/tokenizer*.json model/
  run "$name" train -m model -d data.jsonl -o out --template none --targets $targets --steps 2 \
    --batch 3 --rank 2 --valid-examples 0 --compute f32 &&
    run "$name" eval -m model -a out -d data.jsonl --template none --compute f32 &&
    run "$name" generate -m model -a out --raw -n 4 --temp 0 say
  if [ -f "$from/model.gguf" ]; then
    run "$name" eval -m "$from/model.gguf" -a out --tokens "3 4 5 6" --logits-out a.safetensors &&
      run "$name" eval -m "$from/model.gguf" -a out/adapter.gguf --tokens "3 4 5 6" \
        --logits-out b.safetensors && {
      cmp -s a.safetensors b.safetensors || {
        echo "FAILED: $name: the two files of one adapter give different logits"
        failures=$((failures + 1))
      }
    }
    rm -f a.safetensors b.safetensors
  fi
  rm -rf model out
done
[ "$failures" = 0 ] || echo "$failures failed"
[ "$failures" = 0 ]
