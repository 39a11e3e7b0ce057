#!/bin/sh
# test_kill.sh PROGRAM FOLDER [KILLS [SEED]]: runs of the tiny model are killed (SIGKILL) at
# random moments, also while a checkpoint is written, and resumed until they end. Their
# adapters, moments, scores, metrics must then be those of runs that nobody killed, byte for
# byte, and no resume may lose more than the steps since the newest checkpoint. KILLS (15)
# are shared out over every method and selector that there is.
ist=$1
kills=${3:-15}
seed=${4:-1}
model=$IST_GOLDEN_DIR/llama_tiny/llama_tiny.gguf
cd "$2" || exit 1
export LC_ALL=C OMP_NUM_THREADS=1
every=3 # steps between checkpoints
steps=40

fail() {
  echo "FAILED: $*"
  tail -n 3 err
  exit 1
}

i=0
while [ $i -lt 60 ]; do
  i=$((i + 1))
  echo "{\"prompt\": \"say $i, then $((i % 7))\", \"completion\": \"$((2 * i)) it is, $i times\"}"
done >data.jsonl

train() { # FOLDER METHOD SELECTOR OPTIONS...
  out=$1 method=$2 selector=$3
  shift 3
  "$ist" train -m "$model" -d data.jsonl -o "$out" --method "$method" --selector "$selector" \
    --steps $steps --batch 6 --micro-tokens 64 --max-tokens 48 --dropout 0.1 --probe-every 4 \
    --probe-batch 3 --eval-every 5 --save-every $every --threads 1 "$@" >log 2>err
}

random_below() { # N (seconds with a fraction); moves on with $done_kills
  awk -v seed="$seed$done_kills" -v n="$1" 'BEGIN { srand(seed); rand(); printf "%.4f", rand() * n }'
}

check_resume() { # FOLDER: after a resume began, what it lost
  lines=$(cat lines_at_kill)
  from=$(sed -n 's/.*resumed after step \([0-9]*\).*/\1/p' log | head -n 1)
  [ -n "$from" ] || return 0 # killed before it said so
  [ $((lines - from)) -le $every ] || fail "$1: lost $((lines - from)) steps (from $lines to $from)"
}

combinations=
for method in lora dora parallel series prefix; do
  for selector in ist random all fixed:1,3; do
    train probe $method $selector --steps 1 --overwrite || continue
    combinations="$combinations $method/$selector"
  done
done
rm -rf probe
[ -n "$combinations" ] || fail "no method works"
n=$(echo $combinations | wc -w)

done_kills=0
turn=0
while [ $done_kills -lt $kills ]; do
  turn=$((turn + 1))
  [ $turn -le $((20 * kills)) ] || fail "runs end before they can be killed"
  for combination in $combinations; do
    [ $done_kills -lt $kills ] || break
    method=${combination%/*} selector=${combination#*/}
    whole=whole.$method.$(echo $selector | tr ':,' '__')
    if [ ! -d "$whole" ]; then
      begin=$(date +%s%N)
      train "$whole" $method $selector || fail "$combination"
      echo $((($(date +%s%N) - begin) / 1000000)) >"$whole.ms"
    fi
    seconds=$(awk -v ms="$(cat "$whole.ms")" 'BEGIN { print ms / 1000 }')
    rm -rf torn
    # Some runs die more than once.
    left=$((1 + turn % 3))
    echo 0 >lines_at_kill
    while :; do
      if [ -d torn/checkpoints ] && ls torn/checkpoints | grep -q '^step-'; then
        "$ist" train --resume torn >log 2>err &
      else
        train torn $method $selector --overwrite &
      fi
      pid=$!
      if [ $left -gt 0 ] && [ $done_kills -lt $kills ]; then
        sleep "$(random_below "$seconds")"
        # The shell function runs in a subshell: its child is the run.
        child=$(ps -o pid= --ppid $pid | tr -d ' ')
        kill -9 ${child:-$pid} 2>/dev/null && done_kills=$((done_kills + 1))
        left=$((left - 1))
      fi
      wait $pid
      code=$?
      check_resume "$combination"
      [ $code = 0 ] && break
      [ $code = 137 ] || fail "$combination: exit status $code after a kill"
      [ ! -f torn/metrics.jsonl ] || wc -l <torn/metrics.jsonl >lines_at_kill
    done
    for file in metrics.jsonl adapter.gguf adapter_model.safetensors adapter_config.json \
      importance.json checkpoints/step-000000$steps/state.safetensors; do
      # Not every method has a form for llama.cpp.
      [ -e "$whole/$file" ] || [ -e "torn/$file" ] || [ $file != adapter.gguf ] || continue
      cmp "$whole/$file" "torn/$file" || fail "$combination: $file differs after a kill"
    done
    [ ! -e torn/checkpoints/writing ] || fail "$combination: a half checkpoint is left"
  done
done
echo "$done_kills kills survived, $n combinations of method and selector:$combinations"
