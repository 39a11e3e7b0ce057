#!/bin/sh
# test_signals.sh PROGRAM FOLDER: signals, a second run on the same directory, damaged
# checkpoints, a model file that is truncated while it is mapped.
ist=$1
model=$IST_GOLDEN_DIR/llama_tiny/llama_tiny.gguf
cd "$2" || exit 1
export LC_ALL=C.UTF-8 OMP_NUM_THREADS=1
failures=0
fail() {
  echo "FAILED: $*"
  head -n 3 err
  failures=$((failures + 1))
}
i=0
while [ $i -lt 40 ]; do
  i=$((i + 1))
  echo "{\"prompt\": \"say $i\", \"completion\": \"$((2 * i)) it is\"}"
done >data.jsonl

# start FOLDER OPTIONS...: a run without end in the background, past its second step.
start() {
  out=$1
  : >log # the run before left its own
  shift
  "$ist" train -m "$model" -d data.jsonl -o "$out" --steps 1000000 --batch 2 --probe-batch 2 \
    --report-every 1 --threads 1 "$@" >log 2>err &
  pid=$!
  tries=0
  until grep -q '^step 2/' log || ! kill -0 $pid 2>/dev/null || [ $tries -gt 300 ]; do
    tries=$((tries + 1))
    sleep 0.1
  done
}
ends() { # CODE WHAT
  wait $pid
  code=$?
  [ $code = "$1" ] || fail "$2: exit status $code, expected $1"
}

# ---- Signals: the step ends, a checkpoint is written, 128 + the signal.
for signal in TERM:143 HUP:129; do
  start run.$signal
  kill -${signal%:*} $pid
  ends ${signal#*:} "SIG${signal%:*}"
  grep -q 'the run is saved' err || fail "SIG${signal%:*}: not saved"
  "$ist" train --resume run.$signal --steps 1 >/dev/null 2>err2 || fail "SIG${signal%:*}: no resume"
done

# ---- A second run on the directory, also to resume, is refused while the first one goes on.
start busy --save-every 1
before=$(cksum <busy/settings.json)
"$ist" train -m "$model" -d data.jsonl -o busy --overwrite >out2 2>err2
[ $? = 1 ] || fail "a second run on one directory is let in"
grep -q "^error: 'busy' is in use" err2 || fail "a second run: $(cat err2)"
"$ist" train --resume busy >out2 2>err2
[ $? = 1 ] || fail "a second resume of one directory is let in"
[ "$before" = "$(cksum <busy/settings.json)" ] || fail "the refused run changed the directory"
kill -INT $pid
ends 130 "SIGINT"

# ---- A reader that goes away: the run ends, everything is written.
"$ist" train -m "$model" -d data.jsonl -o piped --steps 20 --batch 2 --probe-batch 2 --threads 1 2>err | head -n 1 >/dev/null
[ -s piped/adapter.gguf ] || fail "SIGPIPE ended the run"

# ---- A damaged checkpoint is passed over with a line, the one before is used.
"$ist" train -m "$model" -d data.jsonl -o whole --steps 12 --batch 2 --probe-batch 2 --save-every 2 \
  --keep 3 --threads 1 >log 2>err || fail "a run"
for damage in changed cut gone record; do
  rm -rf torn
  cp -r whole torn
  newest=torn/checkpoints/step-00000012
  case $damage in
    changed) printf x | dd of=$newest/state.safetensors bs=1 seek=20000 conv=notrunc 2>/dev/null ;;
    cut) head -c 9000 whole/checkpoints/step-00000012/state.safetensors >$newest/state.safetensors ;;
    gone) rm $newest/state.safetensors ;;
    record) sed 's/"step": 12/"step": 13/' whole/checkpoints/step-00000012/state.json >$newest/state.json ;;
  esac
  "$ist" train --resume torn >log 2>err || fail "$damage: no resume"
  grep -q 'passed over a damaged checkpoint' err || fail "$damage: no line about it"
  grep -q 'resumed after step 10' log || fail "$damage: not from the checkpoint before"
  cmp whole/metrics.jsonl torn/metrics.jsonl || fail "$damage: another result"
  cmp whole/adapter.gguf torn/adapter.gguf || fail "$damage: another adapter"
done
for step in 12 10 08; do : >torn/checkpoints/step-000000$step/state.json; done
"$ist" train --resume torn >log 2>err && fail "a run without a whole checkpoint resumes"
grep -q '^error: .*holds no whole checkpoint' err || fail "no whole checkpoint: not said"

# ---- The model file is cut while it is mapped: an error line, not a signal.
cp "$model" cut.gguf
"$ist" train -m cut.gguf -d data.jsonl -o cut --steps 1000000 --batch 2 --probe-batch 2 \
  --report-every 1 --threads 1 >log 2>err &
pid=$!
tries=0
until grep -q '^step 2/' log || [ $tries -gt 300 ]; do
  tries=$((tries + 1))
  sleep 0.1
done
: >cut.gguf
ends 1 "a truncated model file"
grep -q "^error: 'cut.gguf': cannot be read any more" err || fail "a truncated model file: no line"

[ $failures = 0 ] || echo "$failures failures"
[ $failures = 0 ]
