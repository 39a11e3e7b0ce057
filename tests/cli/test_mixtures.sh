#!/bin/sh
# test_mixtures.sh PROGRAM FOLDER: adapters on the experts of mixtures, merged by the command:
# the folder and the GGUF that come out give the logits of model and adapter together, in F32 and
# nearly in the file's own F16.
. "$(dirname "$0")/start.sh"
families=$IST_GOLDEN_DIR/families

# best ARGUMENTS...: prints the likeliest tokens behind some others, with their logits.
best() {
  "$ist" eval "$@" --tokens "3 4 5 6 7 8" --compute f32 --threads 1 -q 2>said | tail -n +2
}
# near WHAT WITHIN ARGUMENTS...: the likeliest tokens are those in `expected`, their logits
# that near.
near() {
  what=$1 within=$2
  shift 2
  best "$@" >got
  paste expected got | awk -v w="$within" '
    NF != 4 || $1 != $3 || $2 - $4 > w || $4 - $2 > w { bad = 1 }
    END { exit bad || NR < 3 }' || fail "$what: $(tr '\n' ' ' <got) for $(tr '\n' ' ' <expected)" said
}

for i in 1 2 3 4 5 6; do
  echo "{\"prompt\": \"say $i\", \"completion\": \"n$i is it\"}"
done >data.jsonl

for name in mixtral qwen2_moe qwen3_moe; do
  from=$families/$name
  case $name in
    mixtral) targets=q,k,v,o,w1,w2,w3 ;;
    *) targets=q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj ;;
  esac
  mkdir model
  cp "$from/config.json" "$from/model.safetensors" "$families"/tokenizer*.json model/
  "$ist" train -m model -d data.jsonl -o out --template none --targets $targets --steps 8 --lr 0.02 \
    --batch 3 --rank 2 --valid-examples 0 --compute f32 -q --threads 1 >said 2>&1 ||
    fail "$name: train" said
  "$ist" merge -m model -a out -o folder --type F32 -q --threads 1 >said 2>&1 ||
    fail "$name: merge into a folder" said
  "$ist" merge -m "$from/model.gguf" -a out -o merged.gguf --type F32 -q --threads 1 >said 2>&1 ||
    fail "$name: merge into a GGUF" said
  "$ist" merge -m "$from/model.gguf" -a out/adapter.gguf -o own.gguf -q --threads 1 >said 2>&1 ||
    fail "$name: merge into a GGUF of the file's own types" said
  best -m model >alone
  best -m model -a out >expected
  [ "$(head -n 1 alone | cut -c1-12)" != "$(head -n 1 expected | cut -c1-12)" ] ||
    fail "$name: training moved nothing, which tells nothing" said
  near "$name: folder" 0.001 -m folder
  near "$name: GGUF" 0.001 -m merged.gguf
  near "$name: GGUF of its own types" 0.05 -m own.gguf
  rm -rf model out folder merged.gguf own.gguf
done
[ "$failures" = 0 ] || echo "$failures failed"
[ "$failures" = 0 ]
