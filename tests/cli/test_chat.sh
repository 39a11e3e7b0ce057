#!/bin/sh
# test_chat.sh PROGRAM FOLDER: `ist generate --chat` from a pipe: turns, their ends, a
# conversation too long, an interrupted answer.
. "$(dirname "$0")/start.sh"
model=$IST_GOLDEN_DIR/llama_tiny/llama_tiny.gguf

# chat LINES ARGUMENTS...: the conversation of these lines; out and err.
chat() {
  printf "$1" >lines
  shift
  "$ist" generate -m "$model" --chat --compute f32 --threads 1 "$@" <lines >out 2>err
}

chat 'one\ntwo\n\nthree' -n 6 || fail "three turns: exit status $?" err
[ "$(grep -c '^prompt: ' err)" = 3 ] || fail "three turns: not three answers" err
[ "$(grep -c 'of them kept' err)" = 2 ] || fail "three turns: nothing was kept" err
chat 'one\n' -n 6 -q || fail "one turn: exit status $?" err
cp out first
"$ist" generate -m "$model" --compute f32 --threads 1 -n 6 -q one >alone 2>err || fail "one prompt" err
cmp -s first alone || fail "the first turn is not what one prompt gives" err
[ ! -s err ] || fail "-q says something" err
chat 'one\r\n/exit\ntwo\n' -n 6 || fail "/exit: exit status $?" err
cmp -s first out || fail "/exit: the conversation went on" err
chat '' -n 6 || fail "no turns: exit status $?" err
[ ! -s out ] || fail "no turns: something was said" err
chat 'one\ntwo\nthree\n' -n 6 --context 60 || fail "--context: exit status $?" err
grep -q '^note: .*--context, 1 of its oldest' err || fail "--context: no note" err
chat 'one\ntwo\n' -n 6 --context 9 && fail "--context: a message too long passes" err
grep -q '^error: the message .* room for 9' err || fail "--context: no error" err
chat 'one\0two\n' -n 6 && fail "a NUL byte passes" err
grep -q '^error: the message holds a NUL' err || fail "a NUL byte: no error" err
chat 'one\n' hello && fail "an argument passes" err
grep -q '^error: --chat reads standard input' err || fail "an argument: no error" err
chat 'one\n' --raw && fail "--raw passes" err
grep -q '^error: raw: ' err || fail "--raw: no error" err

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
grep -q '; interrupted' err || fail "an interrupted answer: it went on" err
echo /exit >&3
exec 3>&-
wait $pid
[ $? = 0 ] || fail "an interrupted answer: the conversation did not go on to its end" err
[ "$failures" = 0 ] || echo "$failures failed"
[ "$failures" = 0 ]
