#!/bin/sh
# demo.sh [SELECTOR...]: a real model before and after fine-tuning on data made
# here. With several selectors (see demo-compare.sh) each trains on the same
# messages in the same order, and what came out stands side by side.
#
# Knobs, from the environment: DEMO_TRAIN, DEMO_TEST (records), DEMO_EPOCHS,
# DEMO_BATCH, DEMO_LR, DEMO_RANK, DEMO_SEED, DEMO_OUT (folder), DEMO_MODEL (another GGUF).
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- ist
out=${DEMO_OUT:-out/demo}
started=$(date +%s)
say() { printf '\n== %s\n' "$*"; }

say "building"
sh scripts/install-deps.sh demo
sh scripts/build.sh release
bin=build/release

say "model and data"
model=${DEMO_MODEL:-$(sh scripts/get-model.sh)}
data=$out/data
rm -rf "$out"
$bin/demo-data --out "$data" --train "${DEMO_TRAIN:-1600}" --valid 60 --test "${DEMO_TEST:-60}" \
  --seed "${DEMO_SEED:-1}"
echo "model     $model"
for split in train valid test; do
  printf '%-9s %s (%s messages)\n' $split "$data/$split.jsonl" "$(wc -l <"$data/$split.jsonl")"
done
echo "          phrasings, names, goods, streets, postal codes and order numbers of the"
echo "          test occur nowhere in training"

# answers LABEL [ADAPTER-OPTION...]: greedy answers to the held-out test.
answers() {
  label=$1
  shift
  $bin/ist eval --quiet --task exact --template chatml -m "$model" -d "$data/test.jsonl" --max-new 64 \
    --examples "$out/$label.jsonl" "$@"
}

say "the untouched model on the held-out test"
answers untouched
columns="untouched=$out/untouched.jsonl"

for selector; do
  say "training, selector $selector"
  began=$(date +%s)
  $bin/ist train -m "$model" -d "$data/train.jsonl" --valid "$data/valid.jsonl" --template chatml -o "$out/$selector" \
    --selector "$selector" --epochs "${DEMO_EPOCHS:-1}" --batch "${DEMO_BATCH:-16}" \
    --rank "${DEMO_RANK:-16}" --lr "${DEMO_LR:-4e-4}" --seed "${DEMO_SEED:-1}"
  echo "training took $(($(date +%s) - began)) s"
  say "the same test after training, selector $selector"
  answers "$selector" --adapter "$out/$selector"
  columns="$columns $selector=$out/$selector.jsonl"
done

say "what came out, on $(wc -l <"$data/test.jsonl") held-out messages"
# shellcheck disable=SC2086
$bin/demo-report --examples 3 $columns | tee "$out/report.txt"

if [ $# -eq 1 ]; then
  say "the layers: how much the loss rises when one layer's adapters are damped"
  $bin/ist eval --quiet --layers -m "$model" --adapter "$out/$1" -d "$data/valid.jsonl" --limit 16
fi

prompt=$(head -n 1 "$data/test.jsonl" | sed 's/.*"user","content":"\([^"]*\)".*/\1/')
say "where everything is"
for selector; do
  echo "$out/$selector/adapter_model.safetensors  for Hugging Face PEFT, with adapter_config.json"
  echo "$out/$selector/adapter.gguf               for llama.cpp"
done
cat <<END
$out/report.txt, $out/*.jsonl: the tables above and every answer

Run it in llama.cpp:
  llama-completion -m $model --lora $out/$1/adapter.gguf -no-cnv --temp 0 -n 64 \\
    -p '<|im_start|>user
$prompt<|im_end|>
<|im_start|>assistant
'
or here:
  $bin/ist generate -m $model --adapter $out/$1 '$prompt'

$(($(date +%s) - started)) s in all
END
