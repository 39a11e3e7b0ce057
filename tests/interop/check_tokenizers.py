#!/usr/bin/env python3
"""Tokenizers against HF tokenizers and sentencepiece: small ones trained here for every kind of
tokenizer.json, and SentencePiece models as GGUF, over generated strings (fuzzed Unicode among
them); every id must be the same, and every decoded text.

    check_tokenizers.py [--count N] [--folder HF-FOLDER]   (a real folder with tokenizer.json)
"""

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import sentencepiece
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,
                        pre_tokenizers, processors, trainers)

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/tokenizer"))
from make_goldens import FRAGMENTS, SENTENCES, random_text

IST = os.environ.get("IST", str(ROOT / "build/release/ist"))
U, W = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
P, X, E = r"[^\r\n\p{L}\p{N}]?", r" ?[^\s\p{L}\p{N}]+", r"\s*[\r\n]+|\s+(?!\S)|\s+"
C = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = C + "|" + P + r"\p{L}+|\p{N}{1,3}|" + X + r"[\r\n]*|" + E
V3 = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
      r"| ?[\p{P}\p{S}]+[\r\n]*|") + E


CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
          r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s")
K, Q = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"


def split(pattern, behavior="isolated"):
    return pre_tokenizers.Split(Regex(pattern), behavior)


def byte_level(regex=False, prefix=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)


def sequence(*steps):
    return pre_tokenizers.Sequence(list(steps))


DIGITS = pre_tokenizers.Digits(individual_digits=True)
CJK = r"[一-龥ࠀ-一가-퟿]+"
BYTE_LEVEL = {
    "gpt-2": (byte_level(True), None),
    "gpt-2-prefix": (byte_level(True, True), normalizers.NFC()),
    "smollm": (sequence(DIGITS, byte_level(True)), None),
    "llama-bpe": (sequence(split(LLAMA3), byte_level()), None),
    "qwen2": (sequence(split(LLAMA3.replace("{1,3}", "")), byte_level()), normalizers.NFC()),
    "tekken": (sequence(split(f"{P}{U}*{W}+|{P}{U}+{W}*|\\p{{N}}|{X}[\\r\\n/]*|{E}"), byte_level()), None),
    "gpt-4o": (sequence(split(f"{P}{U}*{W}+{C}?|{P}{U}+{W}*{C}?|\\p{{N}}{{1,3}}|{X}[\\r\\n/]*|{E}"), byte_level()), None),
    "deepseek-coder": (sequence(split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split(CJK), DIGITS, byte_level()), None),
    "deepseek-v3": (sequence(split(r"\p{N}{1,3}"), split(r"[一-龥぀-ゟ゠-ヿ]+"), split(V3), byte_level()), None),
    "falcon": (sequence(pre_tokenizers.Punctuation("contiguous"), byte_level(True), pre_tokenizers.Digits(individual_digits=False), split("[0-9][0-9][0-9]")), None),
    "bloom": (sequence(split(r" ?[^(\s|[.,!?…。，、।۔،])]+"), byte_level()), None),
    "cl100k": (sequence(split(CL100K), byte_level()), None),
    "kimi-k2": (sequence(split(f"[\\p{{Han}}]+|{P}{K}*{Q}+{C}?|{P}{K}+{Q}*{C}?|\\p{{N}}{{1,3}}|{X}[\\r\\n]*|{E}"), byte_level()), None),
    "digits-from-right": (sequence(split(r"\d{1,3}(?=(?:\d{3})*\b)"), split(r"(?=(\d{3})+(?!\d))"), byte_level()), None),
    "words": (sequence(split(r"\w+|^\W|[[:punct:]]+$", "contiguous"), pre_tokenizers.Whitespace(), byte_level()), None),
    "nfkc": (sequence(split(r"\s+", "merged_with_next"), byte_level()), normalizers.NFKC()),
    "removed": (sequence(split(r"\s+", "removed"), split("-", "contiguous"), byte_level()), normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.Strip()])),
}
CHARACTERS = {
    "metaspace-first": (None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False)),
    "metaspace-always": (None, pre_tokenizers.Metaspace(prepend_scheme="always", split=True)),
    "legacy": (normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None),
    "gemma": (normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous")),
}
ADDED = [
    AddedToken("<|left|>", lstrip=True, special=True, normalized=False),
    AddedToken("<|right|>", rstrip=True, special=True, normalized=False),
    AddedToken("<|both|>", lstrip=True, rstrip=True, normalized=False),
    AddedToken("word", single_word=True, normalized=False),
    AddedToken("Normal é", normalized=True),
    AddedToken("<|plain|>", special=True, normalized=False),
]


def corpus():
    rng = random.Random(7)
    return SENTENCES * 20 + [random_text(rng) for _ in range(1500)]


def strings(count):
    rng = random.Random(99)
    out = list(SENTENCES) + [""]
    spelled = [t.content for t in ADDED]
    while len(out) < count:
        s = random_text(rng)
        if rng.random() < 0.25:
            s += rng.choice(["", " ", "  ", "\n"]) + rng.choice(spelled) + rng.choice(["", " ", "\t ", "x"]) + random_text(rng)
        if rng.random() < 0.03:
            s = rng.choice(["a", " ", "ab", "é", "1", "\n", "▁"]) * rng.randint(50, 400)
        out.append(s)
    return out


def train(pre, norm, characters, size=900, listed=False):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if characters:
        tok = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        alphabet = []
    else:
        tok = Tokenizer(models.BPE())
    if norm:
        tok.normalizer = norm
    if pre:
        tok.pre_tokenizer = pre
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] if characters else []
    trainer = trainers.BpeTrainer(vocab_size=size + (0 if characters else 256) + len(special), initial_alphabet=alphabet,
                                  special_tokens=special, show_progress=False, **({"limit_alphabet": min(150, size // 2)} if characters else {}))
    tok.train_from_iterator(corpus(), trainer)
    if characters:
        if not listed:  # the trainer made special tokens of the bytes
            j = json.loads(tok.to_str())
            j["added_tokens"] = [t for t in j["added_tokens"] if not t["content"].startswith("<0x")]
            tok = Tokenizer.from_str(json.dumps(j))
        tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(),
                                         decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    else:
        tok.decoder = decoders.ByteLevel()
        tok.post_processor = processors.ByteLevel()
    tok.add_tokens([t for t in ADDED if not t.special])
    tok.add_special_tokens([t for t in ADDED if t.special])
    return tok


def ask(path, values, special=True):
    lines = "".join(json.dumps(v) + "\n" for v in values)
    r = subprocess.run([IST, "tokenize", "-m", str(path), "--json-lines"] + ["--special"] * special,
                       input=lines, text=True, capture_output=True)
    if r.returncode:
        print("     " + r.stderr.strip())
    return [json.loads(x) for x in r.stdout.rstrip("\n").split("\n")]


def compare(name, path, texts, encode, decode, skip=()):
    want = [encode(t) for t in texts]
    got = ask(path, texts)
    bad = [i for i in range(len(texts)) if i >= len(got) or got[i] != want[i]]
    back = ask(path, want)
    text = [decode(ids) for ids in want]
    wrong = [i for i in range(len(texts)) if i >= len(back) or (back[i] != text[i] and "\ufffd" not in text[i]
                                                   and not any(x in skip for x in want[i]))]
    print(f"{'MISS' if bad or wrong else 'ok  '} {name}: {len(texts)} strings, {len(bad)} with other ids, "
          f"{len(wrong)} with another text", flush=True)
    for i in bad[:2]:
        print(f"     {texts[i]!r}\n       ist   {got[i] if i < len(got) else None}\n       truth {want[i]}")
    for i in wrong[:2]:
        print(f"     {want[i]}\n       ist   {back[i] if i < len(back) else None!r}\n       truth {text[i]!r}")
    return bool(bad or wrong)


def check_json(name, tok, folder, texts):
    path = Path(folder) / name
    path.mkdir()
    tok.save(str(path / "tokenizer.json"))
    return compare("tokenizer.json " + name, path, texts,
                   lambda t: tok.encode(t, add_special_tokens=False).ids,
                   lambda ids: tok.decode(ids, skip_special_tokens=False),
                   # HF decodes a token of the normalised text as it is normalised, ist as spelled
                   [tok.token_to_id("Normal é")])


def sentencepiece_model(prefix, size=4000):
    model = io.BytesIO()
    lines = [s.replace("\n", " ") for s in corpus()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=size, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=prefix,
        remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True,
        minloglevel=2)
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def write_gguf(path, sp, prefix):
    w = gguf.GGUFWriter(str(path), "llama")
    w.add_tokenizer_model("llama")
    n, kinds = sp.vocab_size(), gguf.TokenType
    w.add_token_list([sp.id_to_piece(i) for i in range(n)])
    w.add_token_scores([sp.get_score(i) for i in range(n)])
    w.add_token_types([int(kinds.UNKNOWN if sp.is_unknown(i) else kinds.CONTROL if sp.is_control(i)
                           else kinds.BYTE if sp.is_byte(i) else kinds.NORMAL) for i in range(n)])
    w.add_add_space_prefix(prefix)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--count", type=int, default=20000)
    args.add_argument("--folder")
    a = args.parse_args()
    texts, missed = strings(a.count), 0
    if a.folder:
        tok = Tokenizer.from_file(str(Path(a.folder) / "tokenizer.json"))
        sys.exit(compare(a.folder, a.folder, texts, lambda t: tok.encode(t, add_special_tokens=False).ids,
                         lambda ids: tok.decode(ids, skip_special_tokens=False)))
    with tempfile.TemporaryDirectory() as folder:
        for name, (pre, norm) in BYTE_LEVEL.items():
            missed += check_json(name, train(pre, norm, False), folder, texts)
        for name, (norm, pre) in CHARACTERS.items():
            missed += check_json(name, train(pre, norm, True), folder, texts)
        norm, pre = CHARACTERS["legacy"]
        missed += check_json("legacy-listed", train(pre, norm, True, listed=True), folder, texts)
        for prefix in (True, False):
            sp, path = sentencepiece_model(prefix), Path(folder) / f"sp{prefix}.gguf"
            write_gguf(path, sp, prefix)
            # sentencepiece takes "\0" for an end, and U+2581 and control spellings as they stand
            plain = [t for t in texts if "\0" not in t]
            missed += compare(f"sentencepiece, add_space_prefix {prefix}", path, plain,
                              sp.encode, lambda ids: sp.decode(ids))
    print(f"{missed} missed" if missed else "all good")
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
