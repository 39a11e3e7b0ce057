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

# ---- A second signal ends the run at once, in the middle of a step; what was saved is whole.
"$ist" train -m "$model" -d data.jsonl -o twice --steps 3 --batch 2 --probe-batch 2 --threads 1 \
  >log 2>err || fail "a run"
# A step of many passes, none of which ends the process before it is done.
"$ist" train --resume twice --steps 1000000 --report-every 1 >log 2>err &
pid=$!
tries=0
until grep -q '^step 5/' log || [ $tries -gt 300 ]; do
  tries=$((tries + 1))
  sleep 0.1
done
kill -STOP $pid # both arrive before the next step can end, INT (the lower number) first
kill -INT $pid
kill -TERM $pid
kill -CONT $pid
ends 143 "two signals"
grep -q 'the run is saved' err && fail "two signals: the first one's work was finished"
"$ist" train --resume twice --steps 6 >log 2>err || fail "two signals: no resume"
[ ! -e twice/checkpoints/writing ] || fail "two signals: a half checkpoint is left"

# ---- A terminal that is resized does no harm; one that is closed is a signal to stop.
begin="$ist train -m $model -d data.jsonl --batch 2 --probe-batch 2 --threads 1 --report-every 1"
$begin -o still --steps 30 >log 2>err || fail "a run"
$begin -o resized --steps 30 >log 2>err &
pid=$!
while kill -WINCH $pid 2>/dev/null; do sleep 0.02; done
ends 0 "SIGWINCH"
cmp still/metrics.jsonl resized/metrics.jsonl || fail "SIGWINCH: another result"
if command -v script >/dev/null 2>&1; then
  script -qec "$begin -o closed --steps 1000000" /dev/null >log 2>err </dev/null &
  pid=$!
  tries=0
  until [ -s closed/metrics.jsonl ] || [ $tries -gt 300 ]; do
    tries=$((tries + 1))
    sleep 0.1
  done
  kill -9 $pid # the terminal's other end is gone
  wait $pid 2>/dev/null
  tries=0
  until "$ist" train --resume closed --steps 1 >log2 2>err2 || [ $tries -gt 100 ]; do
    grep -q 'in use\|no whole\|cannot open' err2 || break # it is still saving
    tries=$((tries + 1))
    sleep 0.1
  done
  [ -n "$(ls closed/checkpoints 2>/dev/null)" ] || fail "a closed terminal: not saved"
  [ -s closed/adapter.gguf ] || fail "a closed terminal: no resume: $(cat err2)"
fi

# ---- A best adapter that is damaged: a line, and the newest is kept. What follows the resume, at
# a learning rate that ruins everything, cannot be the best.
$begin -o best --steps 8 --lr 0.2 --eval-every 1 --save-every 1 >log 2>err || fail "a run"
cp -r best damaged
for file in damaged/best/step-*; do printf x | dd of="$file" bs=1 seek=2000 conv=notrunc 2>/dev/null; done
for run in best damaged; do
  "$ist" train --resume $run --steps 10 --lr 5 --eval-every 1000 >log 2>err || fail "$run adapter: no resume"
  grep -q '^step 10/.* best' log && fail "$run adapter: the last step is the best"
  lines=$(grep -c "the best adapter cannot be used.*$run/best/step-" err)
  [ $lines = $([ $run = best ]; echo $?) ] || fail "$run adapter: $lines lines about it"
done
cmp best/metrics.jsonl damaged/metrics.jsonl || fail "a damaged best adapter: another run"
cmp -s best/adapter.gguf damaged/adapter.gguf && fail "a damaged best adapter is used"
[ -s damaged/adapter.gguf ] || fail "a damaged best adapter: no adapter"

# ---- A base or data file that changed since is noticed.
"$ist" train -m "$model" -d data.jsonl -o changed --steps 2 --batch 2 --probe-batch 2 --threads 1 \
  >log 2>err || fail "a run"
cp data.jsonl data.before
sed 's/say 3/say three/' data.before >data.jsonl
"$ist" train --resume changed --steps 4 >log 2>err && fail "changed data are let in"
grep -q '^error: .*data_hash' err || fail "changed data: $(cat err)"
mv data.before data.jsonl
cp "$model" base.gguf
"$ist" train -m base.gguf -d data.jsonl -o changed --overwrite --steps 2 --batch 2 --probe-batch 2 \
  --threads 1 >log 2>err || fail "a run"
printf x | dd of=base.gguf bs=1 seek=60000 conv=notrunc 2>/dev/null
"$ist" train --resume changed --steps 4 >log 2>err && fail "a changed base is let in"
grep -q '^error: .*model_hash' err || fail "a changed base: $(cat err)"

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

# ---- What ends the process in the middle of a file or folder leaves nothing of it.
# begun PATTERN COMMAND...: starts the command, waits for its temporary name, which fits PATTERN.
begun() {
  pattern=$1
  shift
  "$@" >log 2>err &
  pid=$!
  while kill -0 $pid 2>/dev/null && ! ls -d $pattern >log2 2>&1; do :; done
}
nothing_left() { # CODE WHAT
  ends "$1" "$2"
  left=$(ls -d *.tmp-* 2>/dev/null)
  [ -z "$left" ] || fail "$2: left $left"
}
"$ist" make-model --layers 2 --type F16 -o large.gguf 2>err || fail "make-model"
i=0
while [ $((i += 1)) -le 200 ]; do echo '{"prompt": "a", "completion": "b"}'; done >questions.jsonl
begun 'answers.jsonl.tmp-*' "$ist" eval -m large.gguf -d questions.jsonl --template none --task exact --examples answers.jsonl
kill -INT $pid
nothing_left 130 "SIGINT in eval"
begun 'half.gguf.tmp-*' "$ist" make-model -o half.gguf
kill -INT $pid
nothing_left 130 "SIGINT in make-model"
for signal in TERM:143 HUP:129; do
  begun 'half.tmp-*/model-00002-of-*' "$ist" merge -m large.gguf -o half --type F32 --shard-size 30000000
  kill -${signal%:*} $pid
  nothing_left ${signal#*:} "SIG${signal%:*} in a merge"
done
begun 'half.gguf.tmp-*' "$ist" merge -m large.gguf -o half.gguf --type Q4_K
: >large.gguf
nothing_left 1 "a base that is truncated in a merge"
(ulimit -f 100; exec "$ist" make-model --layers 2 -o half.gguf >log 2>err) &
pid=$!
nothing_left 1 "a file that may not grow"
grep -q "^error: cannot write 'half.gguf': File too large" err || fail "a file that may not grow"
[ ! -e half.gguf ] && [ ! -e half ] || fail "an interrupted command wrote a result"

[ $failures = 0 ] || echo "$failures failures"
[ $failures = 0 ]
