"""Makes tests/tokenizer/golden/json.json and the folders beside it: small tokenizer.json files of
several kinds and a SentencePiece model as GGUF, with the ids and the decoded texts that HF
tokenizers and sentencepiece give for some 500 strings.

    python tests/tokenizer/make_json_goldens.py    (pip: tokenizers, sentencepiece, gguf)
"""

import importlib.metadata
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "interop"))
import check_tokenizers as check

OUT = HERE / "golden"
COUNT = 560
KINDS = ["gpt-2-prefix", "falcon", "nfkc", "removed", "metaspace-first", "metaspace-always", "legacy", "gemma"]


def rows(texts, encode, decode, skip=()):
    """[ids, decoded text, true where that is the text, null where it is not asked for]"""
    out = []
    for text in texts:
        ids = encode(text)
        back = decode(ids)
        unasked = "\ufffd" in back or any(i in skip for i in ids)
        out.append([ids, None if unasked else True if back == text else back])
    return out


def main():
    texts = [t for t in check.strings(COUNT) if len(t) < 56 and "\0" not in t]
    packages = ("tokenizers", "sentencepiece", "gguf")
    golden = {"made_with": ", ".join(f"{p} {importlib.metadata.version(p)}" for p in packages), "texts": texts}
    for name in KINDS:
        characters = name in check.CHARACTERS
        norm, pre = check.CHARACTERS[name] if characters else check.BYTE_LEVEL[name][::-1]
        tok = check.train(pre, norm, characters, 300)
        folder = OUT / name
        folder.mkdir(exist_ok=True)
        j = json.loads(tok.to_str())
        (folder / "tokenizer.json").write_text(json.dumps(j, ensure_ascii=False, separators=(",", ":")) + "\n")
        golden[name] = rows(texts, lambda t: tok.encode(t, add_special_tokens=False).ids,
                            lambda ids: tok.decode(ids, skip_special_tokens=False),
                            [tok.token_to_id("Normal é")])
    for prefix in (True, False):
        sp = check.sentencepiece_model(prefix, 2200)
        name = "sentencepiece-prefix" if prefix else "sentencepiece"
        check.write_gguf(OUT / f"{name}.gguf", sp, prefix)
        golden[name + ".gguf"] = rows(texts, sp.encode, sp.decode)
    (OUT / "json.json").write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
