"""Makes tests/tokenizer/golden: small byte-level tokenizers, trained with HF
tokenizers, one for each pre-tokeniser rule, and the ids HF gives for 2,200 strings.

    python tests/tokenizer/make_goldens.py        (pip: tokenizers, gguf, safetensors, numpy)

Writes <rule>.gguf (a vocabulary without tensors, as llama.cpp's converter spells it)
and strings.safetensors: the bytes of all strings, where each begins, whether control
tokens are parsed, and for each rule the ids and where each string's ids begin.
HF cannot take broken UTF-8: such a string is expected as the ids of its valid
stretches with the token of each broken byte between them.
"""

import importlib.metadata
import json
import pathlib
import random

import gguf
import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers

OUT = pathlib.Path(__file__).parent / "golden"
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
USER = ["<|tool|>"]
MERGES = 600
STRINGS = 2000

LLAMA = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
OPEN, END = r"[^\r\n\p{L}\p{N}]?", r"\s*[\r\n]+|\s+(?!\S)|\s+"
CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
CASED = OPEN + UPPER + "*" + LOWER + "+%s|" + OPEN + UPPER + "+" + LOWER + "*%s|%s"
SLASHED = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + END
DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|" + END
)
# Expressions that split one after another.
SPLITS = {
    "qwen35": [LLAMA.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r" ?[^\s\p{L}\p{N}]+", r" ?[^\s\p{L}\p{M}\p{N}]+") % r"\p{N}"],
    "tekken": [CASED % ("", "", r"\p{N}") + SLASHED],
    "gpt-4o": [CASED % (CONTRACTION + "?", CONTRACTION + "?", r"\p{N}{1,3}") + SLASHED],
    "deepseek-coder": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", r"\p{N}"],
    "deepseek-v3": [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3],
    "bloom": [r" ?[^(\s|[.,!?…。，、।۔،])]+"],
}


def split_rule(rule):
    """HF's form of a rule, by the tokenizer.json of the models that use it."""
    level = pre_tokenizers.ByteLevel
    if rule == "gpt-2":
        return level(add_prefix_space=False, use_regex=True)
    if rule == "smollm":
        return pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), level(add_prefix_space=False, use_regex=True)]
        )
    if rule in SPLITS:
        steps = [pre_tokenizers.Split(Regex(p), "isolated") for p in SPLITS[rule]]
        return pre_tokenizers.Sequence(steps + [level(add_prefix_space=False, use_regex=False)])
    pattern = Regex(LLAMA % (r"\p{N}{1,3}" if rule == "llama-bpe" else r"\p{N}"))
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pattern, "isolated"), level(add_prefix_space=False, use_regex=False)]
    )


SENTENCES = [
    "The order of 12 lamps arrives on Monday, doesn't it?",
    "We'll meet at 9:45; she's bringing 3,000 leaflets.",
    "I've read it twice, and they'd read it 1,024 times!",
    "for (int i = 0; i < n; i++) {\n    sum += x[i];\n}\n",
    "def area(r):\n    return 3.14159 * r ** 2\n\n\nprint(area(2))",
    '{"name": "lamp", "price": 19.5, "tags": ["desk", "led"]}',
    "SELECT id, total FROM orders WHERE total >= 100;",
    "Où est la gare ? Elle est à côté de l'hôtel.",
    "Die Straße ist naß, aber schön; über 20 Grad.",
    "El niño comió piñas en la mañana. ¿Verdad?",
    "Сегодня хорошая погода, завтра будет дождь.",
    "Η θάλασσα είναι ήρεμη σήμερα.",
    "今天天气很好，我们去公园散步吧。",
    "私は毎朝コーヒーを飲みます。",
    "오늘은 날씨가 정말 좋네요.",
    "القطار يصل في الساعة ٩ صباحا.",
    "הרכבת מגיעה בשעה שבע.",
    "आज मौसम बहुत अच्छा है।",
    "วันนี้อากาศดีมาก",
    "👩‍👩‍👧 🇩🇪 👍🏽 🎉🎉 ☕️",
]
FRAGMENTS = (
    SENTENCES
    + "'s 'S 't 'LL 're 'Ve don't WE'RE x'd 've1 '' ' 's's".split(" ")
    + [" ", "  ", "   ", "\n", "\n\n", " \n", "\r\n", "\t", "\t\t", "    ", "\n    "]
    + ["\u00a0", "\u3000", "\u0085", "\u2028", "\u200b", "\u180e", "\ufeff", "\x00", "\x1b", "\x7f"]
    + "1 12 123 1234 12345 3.14 ٣٤ ½ Ⅷ ² 1st x1 1x 0x1F".split(" ")
    + "e\u0301 naïve ﬁ ß İ ǅ ʰ ª K ſ 's\u0301 क्षि".split(" ")
    + ". ... !? // => :: {} () [] (( \" _ __ - -- @ # $ %d \\n & | ~ ^ `".split(" ")
    + ["http://a.b/c?d=1&e", "snake_case", "camelCase", "<|im_end", "<|", "|>", "<tool>"]
)
RANGES = [
    (0x20, 0x7E), (0x20, 0x7E), (0x00, 0x1F), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x3FF),
    (0x400, 0x4FF), (0x5D0, 0x5EA), (0x620, 0x669), (0x905, 0x939), (0xE01, 0xE2E), (0x1E00, 0x1EFF),
    (0x2000, 0x206F), (0x20A0, 0x20B5), (0x2190, 0x21FF), (0x2460, 0x24FF), (0x3041, 0x3096),
    (0x30A1, 0x30FA), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0xFF01, 0xFF5E), (0x1D400, 0x1D433),
    (0x1F300, 0x1F5FF), (0x1F600, 0x1F64F), (0x20000, 0x20050),
]  # fmt: skip


def random_text(rng):
    out = []
    for _ in range(rng.randint(1, 5)):
        pick = rng.random()
        if pick < 0.55:
            out.append(rng.choice(FRAGMENTS[len(SENTENCES):]))
        elif pick < 0.65:
            words = rng.choice(SENTENCES).split(" ")
            at = rng.randrange(len(words))
            out.append(" " * rng.randint(0, 2) + " ".join(words[at:at + 3]))
        elif pick < 0.72:
            out.append(rng.choice(" \n\t\u00a0") * rng.randint(1, 6))
        else:
            low, high = rng.choice(RANGES)
            out.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 4))))
    return "".join(out)


def broken_bytes(rng):
    raw = bytearray(random_text(rng).encode())
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(raw) + 1)
        if rng.random() < 0.5:
            del raw[at:at + 1]
        raw[at:at] = bytes(rng.choice([0x80, 0xBF, 0xC0, 0xC3, 0xE4, 0xED, 0xF0, 0xF5, 0xFF]) for _ in range(1))
    return bytes(raw)


def with_specials(rng):
    names = CONTROL + USER
    return "".join(random_text(rng)[:12] + rng.choice(names) for _ in range(rng.randint(1, 3))) + random_text(rng)[:8]


def make_strings():
    """(bytes, control tokens parsed) in the order of the file."""
    rng = random.Random(20241)
    strings = [(s.encode(), False) for s in SENTENCES]
    while len(strings) < STRINGS:
        strings.append((random_text(rng).encode(), False))
    strings += [(with_specials(rng).encode(), i % 2 == 0) for i in range(100)]
    strings += [(broken_bytes(rng), False) for _ in range(100)]
    return strings


def train(rule):
    rng = random.Random(7)
    tok = Tokenizer(models.BPE(ignore_merges=rule in ("llama-bpe", "tekken")))
    tok.pre_tokenizer = split_rule(rule)
    corpus = SENTENCES * 20 + [random_text(rng) for _ in range(2000)]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=256 + MERGES, initial_alphabet=alphabet, show_progress=False)
    tok.train_from_iterator(corpus, trainer)
    return tok


def read_back(tok):
    """The vocabulary in id order and the merges as "a b"."""
    model = json.loads(tok.to_str())["model"]
    vocab = sorted(model["vocab"], key=model["vocab"].get)
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return vocab, merges


def write_gguf(rule, vocab, merges):
    w = gguf.GGUFWriter(str(OUT / f"{rule}.gguf"), "llama")
    types = gguf.TokenType
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(rule)
    w.add_token_list(vocab + CONTROL + USER)
    w.add_token_types(
        [int(types.NORMAL)] * len(vocab) + [int(types.CONTROL)] * len(CONTROL) + [int(types.USER_DEFINED)] * len(USER)
    )
    w.add_token_merges(merges)
    w.add_eos_token_id(len(vocab))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def expected(plain, special, byte_id, raw, parse):
    """HF's ids, stretch by stretch of valid UTF-8."""
    tok, out, stretch = special if parse else plain, [], ""
    for c in raw.decode("utf-8", "surrogateescape"):
        if 0xDC80 <= ord(c) <= 0xDCFF:
            out += tok.encode(stretch).ids + [byte_id[ord(c) - 0xDC00]]
            stretch = ""
        else:
            stretch += c
    return out + tok.encode(stretch).ids


def main():
    OUT.mkdir(exist_ok=True)
    strings = make_strings()
    tensors = {
        "text": np.frombuffer(b"".join(s for s, _ in strings), np.uint8),
        "text.start": np.cumsum([0] + [len(s) for s, _ in strings]).astype(np.int32),
        "parse": np.array([p for _, p in strings], np.uint8),
    }
    for rule in ["gpt-2", "llama-bpe", "qwen2", "smollm", *SPLITS]:
        plain = train(rule)
        vocab, merges = read_back(plain)
        write_gguf(rule, vocab, merges)
        special = Tokenizer.from_str(plain.to_str())
        # User-defined tokens are found in any text, control tokens where they are parsed.
        plain.add_tokens([AddedToken(u, special=False) for u in USER])
        shift = len(CONTROL)
        special.add_special_tokens(CONTROL)
        special.add_tokens([AddedToken(u, special=False) for u in USER])
        byte_id = [vocab.index(c) for c in byte_characters()]
        ids = []
        for raw, parse in strings:
            row = expected(plain, special, byte_id, raw, parse)
            if not parse:
                row = [i + shift if i >= len(vocab) else i for i in row]
            ids.append(row)
        tensors[rule] = np.array([i for row in ids for i in row], np.int16)
        tensors[f"{rule}.start"] = np.cumsum([0] + [len(row) for row in ids]).astype(np.int32)
        print(rule, len(vocab), "tokens", len(merges), "merges", len(tensors[rule]), "ids")
    packages = ("tokenizers", "gguf", "safetensors", "numpy")
    path = OUT / "strings.safetensors"
    made_with = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in packages)
    save_file(tensors, path, {"made_with": made_with})
    path.chmod(0o644)
    print(len(strings), "strings")


def byte_characters():
    """The characters that stand for bytes 0 to 255."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = iter(range(256, 512))
    return [chr(b) if b in kept else chr(next(extra)) for b in range(256)]


if __name__ == "__main__":
    main()
