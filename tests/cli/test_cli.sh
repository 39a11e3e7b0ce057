#!/bin/sh
# test_cli.sh PROGRAM FOLDER: the command on a tiny model. What goes wrong is told
# in one clear line, with the right exit status, and leaves nothing behind.
. "$(dirname "$0")/start.sh"
model=$IST_GOLDEN_DIR/llama_tiny/llama_tiny.gguf

# refused CODE TEXT ARGUMENTS...: exits with CODE, says TEXT in an error line on
# stderr and nothing on stdout, writes no file.
refused() {
  code=$1 text=$2
  shift 2
  before=$(find . | sort)
  "$ist" "$@" >../refused.out 2>../refused.err </dev/null
  got=$?
  [ "$got" = "$code" ] || fail "ist $*: exit status $got, expected $code" ../refused.err
  head -n 1 ../refused.err | grep -q '^error: ' || fail "ist $*: no error line" ../refused.err
  head -n 1 ../refused.err | grep -qF -e "$text" || fail "ist $*: no \"$text\"" ../refused.err
  [ "$(grep -vc '^hint: ' ../refused.err)" = 1 ] || fail "ist $*: more than one line" ../refused.err
  [ ! -s ../refused.out ] || fail "ist $*: wrote to standard output" ../refused.err
  [ "$before" = "$(find . | sort)" ] || fail "ist $*: left files behind" ../refused.err
}

# works TEXT ARGUMENTS...: exits with 0 and has TEXT on stdout (kept in ../works.out).
works() {
  text=$1
  shift
  "$ist" "$@" >../works.out 2>../works.err </dev/null
  got=$?
  [ "$got" = 0 ] || fail "ist $*: exit status $got" ../works.err
  [ -z "$text" ] || grep -qF -e "$text" ../works.out || fail "ist $*: no \"$text\" on standard output" ../works.err
}

mkdir work
cd work || exit 1
i=0
while [ $i -lt 40 ]; do
  i=$((i + 1))
  echo "{\"prompt\": \"say $i\", \"completion\": \"$((2 * i)) it is\"}"
done >data.jsonl
printf '{"prompt": "a", "completion": "b"}\n{"prompt": \n' >broken.jsonl
printf '{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n' >lacking.jsonl
echo '{"foo": 1}' >strange.jsonl
: >empty.jsonl
head -c 50000 "$model" >cut.gguf
cp "$model" other.gguf # the same model but for one weight
printf '\377\377\377\076' | dd of=other.gguf bs=1 seek=90000 conv=notrunc 2>/dev/null
sed "s/say 7/say 8/" data.jsonl >changed.jsonl
# patch FILE NAME SKIP BYTES: writes BYTES over FILE, SKIP bytes after the first NAME.
patch() {
  at=$(LC_ALL=C grep -abo -m 1 "$2" "$1" | head -n 1 | cut -d: -f1)
  printf "$4" | dd of="$1" bs=1 seek=$((at + ${#2} + $3)) conv=notrunc 2>/dev/null
}
cp "$model" arch.gguf
patch arch.gguf general.architecture 12 zebra # behind type and length
cp "$model" escape.gguf
patch escape.gguf general.architecture 12 '\033[31m'
cp "$model" name.gguf # a name with an escape sequence, a C1 control, DEL and a mark of direction
patch name.gguf token_embd.weight -17 '\033]0;x\007\302\233\177\342\200\256.name'
cp -r "${model%/*/*}/adapters/patterns" keys # the same in a key of an adapter's configuration
sed '1s/{/{"\\u001b]0;x\\u0007\\u202e.name": {"a": 1},/' keys/adapter_config.json >keys.json
mv keys.json keys/adapter_config.json
cp "$model" type.gguf
patch type.gguf blk.0.attn_q.weight 20 '\020' # behind two dimensions: IQ2_XXS
head -c 3000 /dev/zero | tr '\000' x >noise.gguf
printf GGUF >short.gguf
echo '[]' >none.json
echo '{"messages": [{"role": "user"}]}' >chat.jsonl
mkdir folder
echo '{"rank": "a lot"}' >folder/settings.json

# ---- The line
refused 2 'unknown command "trian"' trian
refused 2 'unknown option --rnak' train --rnak 3
grep -q '^hint: did you mean --rank?$' ../refused.err || fail "no suggestion" ../refused.err
refused 2 '--rank: found "0", expected a whole number from 1 to 4096' train --rank 0
refused 2 '--dropout: found "2"' train --dropout 2
refused 2 '--compute: found "f64", expected one of auto, f32, bf16' eval --compute f64
refused 2 'needs --model' train -d data.jsonl
refused 2 'needs --data' train -m "$model"
refused 2 'needs PATH' inspect
refused 2 'unexpected argument' plan -m "$model" x
refused 2 '--completions' --completions fish
refused 2 '--layers needs --adapter' eval -m "$model" -d data.jsonl --layers
refused 2 '--tokens: found "9999"' eval -m "$model" --tokens '1 9999'
"$ist" >/dev/null 2>&1
[ $? = 2 ] || fail "no command: exit status"

# ---- Files
refused 1 nowhere.gguf train -m nowhere.gguf -d data.jsonl
refused 1 data.jsonl train -m data.jsonl -d data.jsonl
refused 1 cut.gguf train -m cut.gguf -d data.jsonl
refused 1 folder train -m folder -d data.jsonl
refused 1 'not a GGUF file' train -m noise.gguf -d data.jsonl
refused 1 'not a GGUF file' tokenize -m noise.gguf hi
refused 1 'short.gguf: truncated' inspect short.gguf
refused 1 'general.architecture: found "zebra", supported: llama' train -m arch.gguf -d data.jsonl
refused 1 'general.architecture: found "zebra"' generate -m arch.gguf hi
refused 1 'general.architecture: found "?[31m"' train -m escape.gguf -d data.jsonl
refused 1 "tensor 'blk.0.attn_q.weight': tensor type 16 (IQ2_XXS) is not supported" train -m type.gguf -d data.jsonl
refused 1 'blk.0.attn_q.weight' plan -m type.gguf
refused 1 nowhere.jsonl train -m "$model" -d nowhere.jsonl
refused 1 broken.jsonl:2 train -m "$model" -d broken.jsonl
refused 1 broken.jsonl:2 eval -m "$model" -d broken.jsonl
refused 1 lacking.jsonl:2 train -m "$model" -d lacking.jsonl
refused 1 strange.jsonl:1 train -m "$model" -d strange.jsonl
refused 1 empty.jsonl train -m "$model" -d empty.jsonl
refused 1 'none.json: no records' train -m "$model" -d none.json
refused 1 "chat.jsonl:1: no field 'messages[0].content'" train -m "$model" -d chat.jsonl
refused 1 empty.jsonl train -m "$model" -d data.jsonl --valid empty.jsonl
refused 1 'folder: found a directory' train -m "$model" -d folder
refused 1 "'data.jsonl': it is there and not a directory" train -m "$model" -d data.jsonl -o data.jsonl
refused 1 "'data.jsonl': it is there and not a directory" train -m "$model" -d data.jsonl -o data.jsonl/run
refused 1 nowhere eval -m "$model" -d data.jsonl --adapter nowhere
refused 1 nowhere inspect nowhere
refused 1 data.jsonl inspect data.jsonl
refused 1 'rank: found "a lot"' train --resume folder
refused 1 nowhere train --resume nowhere
refused 1 nowhere eval -m "$model" -d data.jsonl --task exact --max-new 1 --examples nowhere/x
refused 1 nowhere eval -m "$model" --tokens 1 --logits-out nowhere/x
refused 1 broken.jsonl:2 eval -m "$model" -d broken.jsonl --task exact --examples answers.jsonl
refused 1 'is there already' make-model -o data.jsonl
refused 2 'vocabulary: found 12, expected 259' make-model --vocab 12 -o small.gguf
refused 2 'output' make-model

# ---- Names of a file that would drive a terminal
harmless() {
  works '' "$@"
  LC_ALL=C grep -q "$(printf '[\001-\010\013-\037\177]\|\302[\200-\237]\|\342\200\256')" ../works.out &&
    fail "ist $*: controls in the output"
  works .name "$@"
}
harmless inspect name.gguf
harmless inspect name.gguf --all
harmless inspect name.gguf --json
grep -qF '"name": "\u001B]0;x\u0007\u009b\u007f\u202e.name"' ../works.out || fail "inspect --json: another name"
harmless inspect keys
latin=$(printf 'mod\350le.gguf') # a path that is not UTF-8, which JSON cannot hold
cp "$model" "$latin"
works '' inspect "$latin"
works 'step 1/1' train -m "$latin" -d data.jsonl -o latin --steps 1 --batch 2
grep -q '"model_path": "mod?le.gguf"' latin/settings.json || fail "another model_path" latin/settings.json
harmless diff "$model" name.gguf
harmless diff "$model" name.gguf --json

# What a model writes: as it is for a program, harmless for a terminal, a dumb one too. This seed draws
# controls.
written="generate -m $model --threads 1 -n 200 -t 5 --seed 1 --raw -q hi"
controls="$(printf '[\001-\010\013\014\016-\037\177]')"
"$ist" $written >../works.out 2>../works.err </dev/null
LC_ALL=C grep -q "$controls" ../works.out || fail "generate: the controls of a model are not in the output" ../works.err
if command -v script >/dev/null 2>&1; then
  for term in xterm dumb; do
    TERM=$term script -qec "$ist $written" /dev/null >../works.out 2>&1 </dev/null
    LC_ALL=C grep -q "$controls" ../works.out && fail "generate: controls on a terminal of type $term"
  done
fi

# ---- Pipes in the place of files
mkfifo pipe
refused 1 "cannot read 'pipe': it is a device or pipe" inspect pipe
refused 1 'pipe: found a device or pipe' train -m "$model" -d pipe
mkdir piped
mkfifo piped/config.json piped/settings.json
refused 1 "cannot read 'piped/config.json': it is a device or pipe" inspect piped
refused 1 'piped/settings.json: found no regular file' train --resume piped
rm -r pipe piped

# ---- A model of given sizes
works '' make-model --layers 1 --width 64 --mlp-width 96 --heads 4 --kv-heads 2 --head-size 16 \
  --vocab 300 -o made.gguf
works '50,112' inspect made.gguf
rm made.gguf

# ---- What the model lacks
refused 2 zz train -m "$model" -d data.jsonl --targets q,zz
refused 2 9 train -m "$model" -d data.jsonl --selector fixed:9
refused 1 memory train -m "$model" -d data.jsonl --max-memory 1K

# ---- A run
works 'step 6/6' train -m "$model" -d data.jsonl -o run --steps 6 --batch 2 --probe-every 4 --probe-batch 2 --threads 1
grep -q '^validation loss .* before, .* after' ../works.out || fail "no validation before and after" ../works.err
grep -q "$(printf '\033')" ../works.out && fail "escapes in plain output"
for file in adapter_config.json adapter_model.safetensors adapter.gguf importance.json settings.json metrics.jsonl; do
  [ -s run/$file ] || fail "no run/$file"
done
refused 2 'another run' train -m "$model" -d data.jsonl -o run
refused 1 other.gguf train --resume run -m other.gguf
refused 1 data train --resume run -d changed.jsonl
refused 1 'compute: found "f32"' train --resume run --compute f32
works 'step 8/8' train --resume run --steps 8
grep -q '^step 7/8' ../works.out || fail "--resume did not go on after step 6" ../works.err
# Ended by patience, then killed before the adapter was written: the resume writes it.
works '' train -m "$model" -d data.jsonl -o patient --steps 50 --batch 2 --lr 5 --eval-every 1 --save-every 1 --patience 2
rm patient/adapter*
works 'patient' train --resume patient
[ -s patient/adapter.gguf ] || fail "a run that patience ended: no adapter after a resume" ../works.err
grep -q '^step 6/8' ../works.out && fail "--resume repeated step 6" ../works.err

# ---- Ctrl-C: the step ends, a checkpoint is written, 130; the run goes on later.
"$ist" train -m "$model" -d data.jsonl -o stopped --steps 100000 --batch 2 --probe-batch 2 --report-every 1 --threads 1 >log 2>err &
pid=$!
tries=0
until grep -q '^step 2/' log || ! kill -0 $pid || [ $tries -gt 300 ]; do
  tries=$((tries + 1))
  sleep 0.1
done
kill -INT $pid || fail "training ended before it was stopped"
wait $pid
got=$?
# A shell without job control starts background commands with SIGINT ignored; the
# command catches it all the same.
[ $got = 130 ] || fail "SIGINT: exit status $got, expected 130"
grep -q 'ist train --resume stopped' err || fail "SIGINT: does not say how to go on"
step=$(sed -n 's/^stopped after step \([0-9]*\);.*/\1/p' err)
works "step $((step + 1))/" train --resume stopped --steps $((step + 1)) --eval-every -1

# ---- Adapters: trained on, merged, compared
works 'step 2/2' train -m "$model" -d data.jsonl -o onward --adapter "$IST_GOLDEN_DIR/adapters/patterns" --steps 2 --batch 2 --probe-batch 2 --eval-every -1
grep -q '^adapter  lora, rank 5, .*on q_proj,k_proj,up_proj' ../works.out || fail "train --adapter: another adapter in the header"
grep -q '"targets": "q_proj,k_proj,up_proj"' onward/settings.json || fail "train --adapter: not the adapter's targets"
refused 2 'exclude each other' train --resume onward --adapter run
works 'tensors merged' merge -m "$model" --adapter run -o merged.gguf -d data.jsonl --limit 4
works '"error"' merge -m "$model" --adapter run -o small.gguf --type Q8_0 --json
works 'all together' diff "$model" merged.gguf
works '"relative"' diff run onward --json
works 'weights' merge -m "$model" --adapter run/adapter.gguf -o hf
[ -s hf/model.safetensors ] && [ -s hf/tokenizer.json ] || fail "merge: no folder"
refused 1 'is there already' merge -m "$model" --adapter run -o merged.gguf
refused 2 'found "Q3_K"' merge -m "$model" --adapter run -o x.gguf --type Q3_K
refused 2 'the base model itself' merge -m merged.gguf --adapter run -o merged.gguf --overwrite
refused 1 nowhere merge -m "$model" --adapter nowhere -o x.gguf
refused 2 'needs --adapter' merge -m "$model" -o x.gguf
refused 2 'needs A B' diff merged.gguf
refused 2 'a model and an adapter' diff merged.gguf run
"$ist" generate -q -m merged.gguf -n 8 --compute f32 'say 3' >a.txt 2>err || fail "generate from a merged model"
"$ist" generate -q -m "$model" --adapter run -n 8 --compute f32 --template chatml 'say 3' >b.txt 2>err || fail "generate"
cmp -s a.txt b.txt || fail "merged and unmerged write different texts"

# ---- The other commands
works perplexity eval -m "$model" -d data.jsonl --adapter run --limit 4
works '"perplexity"' eval -m "$model" -d data.jsonl --limit 4 --json
works '"low": null' eval -m "$model" -d data.jsonl --adapter run --layers --limit 1 --json
works '95 % interval' eval -m "$model" -d data.jsonl --adapter run --layers --limit 4
works 'exact       ' eval -m "$model" -d data.jsonl --task exact --limit 3 --max-new 4 --examples answers.jsonl
[ "$(grep -c '"expected":"' answers.jsonl)" = 3 ] || fail "answers.jsonl has no three answers"
works 'likeliest' eval -m "$model" --tokens '1 2 3'
works '' eval -m "$model" --tokens '1 2 3' --logits-out logits.safetensors
mkfifo pipe
cat pipe >piped &
works '' eval -m "$model" --tokens '1 2 3' --logits-out pipe
wait
[ -p pipe ] && cmp -s logits.safetensors piped || fail "eval: a pipe is not written as it is"
echo mine >answers.jsonl.part
works '' eval -m "$model" -d data.jsonl --task exact --limit 1 --max-new 1 --examples answers.jsonl
[ "$(cat answers.jsonl.part)" = mine ] || fail "eval: a file beside the answers is gone"
size=$(wc -c <logits.safetensors) # (3, 272) of 4 bytes behind a short header
if [ $((size % 8)) != 0 ] || [ "$size" -lt 3264 ] || [ "$size" -gt 3464 ]; then
  fail "logits.safetensors has $size bytes"
fi
"$ist" generate -q -m "$model" --adapter run -n 8 'say 3' >a.txt 2>err || fail "generate"
printf 'say 3' | "$ist" generate -q -m "$model" --adapter run -n 8 >b.txt 2>err || fail "generate from stdin"
[ -s a.txt ] || fail "generate wrote nothing"
cmp -s a.txt b.txt || fail "generate: an argument and standard input differ"
[ ! -s err ] || fail "generate --quiet is not quiet"
# draw FILE ARGUMENTS...: a text of eight tokens.
draw() {
  to=$1
  shift
  "$ist" generate -q -m "$model" --adapter run -n 8 "$@" 'say 3' >"$to" 2>err || fail "generate $*" err
}
draw b.txt --temp 2 --top-k 1
cmp -s a.txt b.txt || fail "generate: --top-k 1 is not the likeliest text"
draw b.txt --temp 2 --top-p 1e-9
cmp -s a.txt b.txt || fail "generate: a small --top-p is not the likeliest text"
draw b.txt --temp 2 --seed 1
draw c.txt --temp 2 --seed 1
draw d.txt --temp 2 --seed 2
cmp -s a.txt b.txt && fail "generate: --temp 2 draws nothing"
cmp -s b.txt c.txt || fail "generate: one seed, two texts"
cmp -s b.txt d.txt && fail "generate: two seeds, one text"
draw b.txt --system 'You count.'
cmp -s a.txt b.txt && fail "generate: --system changes nothing"
works 'llama.block_count' inspect "$model"
works 'blk.0-3.attn_q.weight' inspect "$model"
works 'blk.3.attn_q.weight' inspect "$model" --all
works '"metadata"' inspect "$model" --json

# The data doctor finds what is wrong, names its line and goes on behind it.
printf '%s\n' '{"prompt":"a","completion":"b"}' '{bad' '{"prompt":"a","completion":"b"}' \
  '{"prompt":"c","completion":" "}' >sick.jsonl
"$ist" data -m "$model" --template none --show 1 sick.jsonl >../works.out 2>../works.err
[ $? = 1 ] || fail "data: a record that cannot be read gives no exit status 1"
for text in 'training refuses: 1' 'sick.jsonl:2: not JSON' 'copies: 1' 'line 3, the same as line 1' \
  'empty answers: 1' 'records  *3$' '>>b'; do
  grep -q "$text" ../works.out || fail "data: no \"$text\""
done
"$ist" data -m "$model" --template none --json sick.jsonl >../works.out 2>../works.err
[ $? = 1 ] || fail "data --json: a record that cannot be read gives no exit status 1"
printf '%s\n' '[{"prompt":"a","completion":"b"}' >open.json
"$ist" data -m "$model" --template none open.json >../works.out 2>../works.err
[ $? = 1 ] || fail "data: a file that cannot be read to its end gives no exit status 1"
grep -q 'open.json:2: not JSON: the array is not closed' ../works.out || fail "data: no end said"
bytes=$(printf '\377.jsonl')
cp data.jsonl "$bytes"
works ' ?.jsonl' data -m "$model" --template none "$bytes"
works 'what is learned of the first records' data -m "$model" --template none data.jsonl
works '"learned": true' data -m "$model" --template none --show 1 --json data.jsonl
# What was to be learned lies behind the cut: too long, and left out.
printf '%s\n' '{"prompt":"a long question","completion":"b"}' '{"prompt":"a","completion":"b"}' >long.jsonl
works '"cut": 1' data -m "$model" --template none --max-tokens 4 --json long.jsonl
grep -q '"not_learned": 1' ../works.out || fail "data: a record behind the cut is not left out"
works settings inspect run
works 'model file' plan -m "$model"
works '"total_bytes"' plan -m "$model" --json

# What plan says fits does fit; the limit that it names as needed is enough.
works 'largest_that_fits' plan -m "$model" --max-memory 60M
works '"rank"' plan -m "$model" --max-tokens 64 --max-memory 60M --json
rank=$(sed -n '/"largest_that_fits"/,/}/s/.*"rank": \([0-9]*\).*/\1/p' ../works.out)
works 'total size' plan -m "$model" --max-tokens 64 --max-memory 60M --rank "$rank"
refused 1 'the smallest plan for these settings needs' plan -m "$model" --max-memory 1M
refused 1 'the smallest plan for these settings needs' train -m "$model" -d data.jsonl -o nothing \
  --max-memory 1M
[ ! -e nothing ] || fail "a limit that cannot be met: something was written"
works 'training  ' bench -m "$model" --seconds 0.1
[ "$(grep -c 'tokens/s' ../works.out)" = 3 ] || fail "bench: not all of training, prompt and text"
export IST_ISA=portable
works 'portable, f32' bench -m "$model" --seconds 0.1 --rank 2
IST_ISA=none
refused 2 IST_ISA generate -m "$model" hello
unset IST_ISA
works '"' tokenize -m "$model" 'hello there'
works '' tokenize -m "$model" --ids 'hello there'
ids=$(cat ../works.out)
printf '"hello there"\n""\n' | "$ist" tokenize -m "$model" --json-lines >lines 2>err || fail "tokenize --json-lines"
[ "$(sed -n 1p lines)" = "[$(echo "$ids" | tr ' ' ',')]" ] || fail "tokenize: --ids and --json-lines differ"
[ "$(sed -n 2p lines)" = '[]' ] || fail "tokenize --json-lines: the empty string"
printf '"a"\nb\n' | "$ist" tokenize -m "$model" --json-lines >lines 2>err && fail "tokenize --json-lines took a line that is not JSON"
grep -q '^error: standard input:2: ' err || fail "tokenize --json-lines: no line number"
"$ist" tokenize -m "$model" --json-lines <. >lines 2>err && fail "tokenize --json-lines took a folder for input"
grep -q '^error: standard input: ' err || fail "tokenize --json-lines: a read that fails goes unnoticed"
if [ -c /dev/full ]; then
  "$ist" inspect "$model" >/dev/full 2>err
  [ $? = 1 ] || fail "a full disk: exit status"
  grep -q '^error: standard output' err || fail "a full disk goes unnoticed"
fi

# ---- What the table of options generates
works 'usage: ist train' help train
works 'usage: ist train' train --help
works '.TH IST 1' --man
if command -v groff >/dev/null; then
  groff -man -Tutf8 -ww ../works.out >/dev/null 2>err
  [ ! -s err ] || fail "groff complains: $(head -n 1 err)"
fi
works '_ist' --completions bash
if command -v bash >/dev/null; then
  cp ../works.out ist.bash
  got=$(bash -c '. ./ist.bash; COMP_WORDS=(ist train --sched); COMP_CWORD=2; _ist; echo "${COMPREPLY[*]}"
    COMP_WORDS=(ist train --schedule c); COMP_CWORD=3; _ist; echo "${COMPREPLY[*]}"' 2>/dev/null | tr '\n' ' ')
  [ "$got" = '--schedule cosine constant ' ] || fail "bash completion: $got"
fi
works '#compdef ist' --completions zsh
if command -v zsh >/dev/null; then
  zsh -n ../works.out || fail "zsh completion has errors"
fi

[ $failures = 0 ] || echo "$failures failures"
[ $failures = 0 ]
