#!/usr/bin/env python3
"""The tokens around a text (BOS, EOS, those of a post-processor) against transformers: small
tokenizer.json files with every kind of post_processor, every value of add_bos_token and
add_eos_token, and the classes of tokenizer; `ist tokenize --ends` must give the same ids.

Where no post_processor names tokens transformers 5 leaves the two flags unread; `ist` follows
them, as transformers 4 and llama.cpp's converter do. Those cases are counted apart.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, processors
from transformers import AutoTokenizer
from transformers.utils import logging

import check_tokenizers as small

TEXT = "a word"
# GPT-2's class builds its own steps, whatever tokenizer.json says, so it is asked for its own only.
CLASSES = {False: ("PreTrainedTokenizerFast", "LlamaTokenizerFast", "GPT2TokenizerFast"),
           True: ("PreTrainedTokenizerFast", "LlamaTokenizerFast")}
NAMES = ("<s>", "</s>", "[X]")


def templates(ids):
    def template(single):
        used = [(t, ids[t]) for t in NAMES if t in single]
        return processors.TemplateProcessing(single=single, pair="$A [X] $B:1",
                                             special_tokens=list({*used, ("[X]", ids["[X]"])}))
    return {
        "none": None,
        "ByteLevel": processors.ByteLevel(),
        "<s> $A": template("<s> $A"),
        "<s> $A </s>": template("<s> $A </s>"),
        "$A </s>": template("$A </s>"),
        "[X] <s>:1 $A </s> [X]": template("[X] <s>:1 $A </s> [X]"),
        "ByteLevel, <s> [X] $A": processors.Sequence([processors.ByteLevel(), template("<s> [X] $A")]),
        "Roberta": processors.RobertaProcessing(("</s>", ids["</s>"]), ("<s>", ids["<s>"])),
        "Bert": processors.BertProcessing(("</s>", ids["</s>"]), ("<s>", ids["<s>"])),
    }


def write(folder, tokenizer, post, config):
    copy = Tokenizer.from_str(tokenizer.to_str())
    j = json.loads(copy.to_str())
    if post:
        copy.post_processor = post
        j = json.loads(copy.to_str())
    else:
        j["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(j))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def ids_of_ist(folder):
    r = subprocess.run([small.IST, "tokenize", "-m", folder, "--ends", "--ids", TEXT], text=True,
                       capture_output=True)
    return [int(x) for x in r.stdout.split()] if r.returncode == 0 else r.stderr.strip()


def main():
    logging.set_verbosity_error()
    same = apart = missed = 0
    kinds = [(small.byte_level(True), None, False), (*small.CHARACTERS["legacy"][::-1], True)]
    for pre, norm, characters in kinds:
        tokenizer = small.train(pre, norm, characters, 300)
        tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in NAMES])
        ids = {t: tokenizer.token_to_id(t) for t in NAMES}
        for (name, post), kind, bos, eos in itertools.product(
                templates(ids).items(), CLASSES[characters], (None, True, False), (None, True, False)):
            config = {"tokenizer_class": kind, "bos_token": "<s>", "eos_token": "</s>"}
            config |= {k: v for k, v in (("add_bos_token", bos), ("add_eos_token", eos))
                       if v is not None}
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder), tokenizer, post, config)
                want = AutoTokenizer.from_pretrained(folder)(TEXT).input_ids
                got = ids_of_ist(folder)
            plain = name in ("none", "ByteLevel")
            if got == want:
                same += 1
            elif plain and got == [ids["<s>"]] * bool(bos) + want + [ids["</s>"]] * bool(eos):
                apart += 1
            else:
                missed += 1
                print(f"MISS {name}, {kind}, bos {bos}, eos {eos}: ist {got}, transformers {want}")
    print(f"{'MISS' if missed else 'ok  '} {same} of {same + apart + missed} folders give transformers' "
          f"ids, {apart} more follow their flags, {missed} missed")
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
