"""What the golden makers share: versions, byte-level alphabet, GGUF tokenizer keys."""

import importlib.metadata
import json
import platform
import struct
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n'"
    " + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def versions(*packages):
    """Package versions as safetensors metadata (string to string)."""
    out = {"python": platform.python_version()}
    for package in packages:
        out[package] = importlib.metadata.version(package)
    return out


def byte_alphabet():
    """The 256 characters that stand for the 256 bytes in byte-level BPE."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    chars, extra = [], 0
    for byte in range(256):
        if byte in kept:
            chars.append(chr(byte))
        else:
            chars.append(chr(256 + extra))
            extra += 1
    return chars


def add_tokenizer(writer, pre, tokens, merges, specials, *, bos, eos, add_bos=False, chat=True):
    """Byte-level BPE keys. `merges` are "a b" strings, `specials` are ids of control tokens."""
    control, normal = int(gguf.TokenType.CONTROL), int(gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([control if i in specials else normal for i in range(len(tokens))])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(bos)
    writer.add_eos_token_id(eos)
    writer.add_pad_token_id(eos)
    writer.add_add_bos_token(add_bos)
    if chat:
        writer.add_chat_template(CHATML)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def permute(weight, heads):
    """HF's half-split rotary rows to llama.cpp's interleaved rows (Q and K of arch `llama`)."""
    rows = weight.shape[0]
    return weight.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2).reshape(rows, -1)


def save(path, tensors, metadata):
    """A safetensors file. The package's own writer orders the metadata at random."""
    names = {np.dtype(np.float32): "F32", np.dtype(np.int32): "I32", np.dtype(np.uint8): "U8"}
    header, data = {"__metadata__": dict(sorted(metadata.items()))}, b""
    for name, value in sorted(tensors.items(), key=lambda kv: (-kv[1].itemsize, kv[0])):
        raw = np.ascontiguousarray(value).tobytes()
        header[name] = {"dtype": names[value.dtype], "shape": list(value.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)
    load_file(path)  # the package reads what we wrote
