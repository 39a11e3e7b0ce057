#!/bin/sh
# test_chat.sh PROGRAM FOLDER: `ist generate --chat` from a pipe: turns, their ends, a
# conversation too long, an interrupted answer.
ist=$1
model=$IST_GOLDEN_DIR/llama_tiny/llama_tiny.gguf
cd "$2" || exit 1
export LC_ALL=C.UTF-8
failures=0

# fail WHAT: counts a failure and shows the first lines of err.
fail() {
  echo "FAILED: $1"
  head -n 3 err | sed 's/^/  stderr: /'
  failures=$((failures + 1))
}
# chat LINES ARGUMENTS...: the conversation of these lines; out and err.
chat() {
  printf "$1" >lines
  shift
  "$ist" generate -m "$model" --chat --compute f32 --threads 1 "$@" <lines >out 2>err
}

chat 'one\ntwo\n\nthree' -n 6 || fail "three turns: exit status $?"
[ "$(grep -c '^prompt: ' err)" = 3 ] || fail "three turns: not three answers"
[ "$(grep -c 'of them kept' err)" = 2 ] || fail "three turns: nothing was kept"
chat 'one\n' -n 6 -q || fail "one turn: exit status $?"
cp out first
"$ist" generate -m "$model" --compute f32 --threads 1 -n 6 -q one >alone 2>err || fail "one prompt"
cmp -s first alone || fail "the first turn is not what one prompt gives"
[ ! -s err ] || fail "-q says something"
chat 'one\r\n/exit\ntwo\n' -n 6 || fail "/exit: exit status $?"
cmp -s first out || fail "/exit: the conversation went on"
chat '' -n 6 || fail "no turns: exit status $?"
[ ! -s out ] || fail "no turns: something was said"
chat 'one\ntwo\nthree\n' -n 6 --context 60 || fail "--context: exit status $?"
grep -q '^note: .*--context, 1 of its oldest' err || fail "--context: no note"
chat 'one\ntwo\n' -n 6 --context 9 && fail "--context: a message too long passes"
grep -q '^error: the message .* room for 9' err || fail "--context: no error"
chat 'one\0two\n' -n 6 && fail "a NUL byte passes"
grep -q '^error: the message holds a NUL' err || fail "a NUL byte: no error"
chat 'one\n' hello && fail "an argument passes"
grep -q '^error: --chat reads standard input' err || fail "an argument: no error"
chat 'one\n' --raw && fail "--raw passes"
grep -q '^error: raw: ' err || fail "--raw: no error"

# Ctrl-C stops the answer, not the conversation. (The model never ends an answer by itself
# where --top-k 1 repeats one token, so this takes minutes where the signal does nothing.)
mkfifo turns
"$ist" generate -m "$model" --chat --compute f32 --threads 1 --context 200000 -n 150000 \
  <turns >out 2>err &
pid=$!
exec 3>turns
echo one >&3
tries=0
until [ "$(wc -c <out)" -gt 200 ] || [ $tries = 100 ]; do
  tries=$((tries + 1))
  sleep 0.1
done
kill -INT $pid
tries=0
until grep -q '; interrupted' err || [ $tries = 100 ]; do
  tries=$((tries + 1))
  sleep 0.1
done
grep -q '; interrupted' err || fail "an interrupted answer: it went on"
echo /exit >&3
exec 3>&-
wait $pid
[ $? = 0 ] || fail "an interrupted answer: the conversation did not go on to its end"
[ "$failures" = 0 ] || echo "$failures failed"
[ "$failures" = 0 ]
