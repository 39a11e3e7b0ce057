#!/usr/bin/env python3
"""The model of llama_tiny.gguf as Hugging Face folders: one file, and bf16 in shards.

Writes llama_hf/ and llama_hf_sharded/; the logits of the first are those in
llama_tiny/goldens.safetensors. Run: python make_hf_tiny.py
"""

import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from common import CHATML, save, versions
from make_llama_tiny import MERGES, SPECIALS, VOCAB, make_model, segments

HERE = Path(__file__).parent
SHAPE = dict(vocab_size=len(VOCAB), hidden_size=24, intermediate_size=36, num_hidden_layers=4,
             num_attention_heads=4, num_key_value_heads=2,
             rope_parameters={"rope_type": "default", "rope_theta": 10000.0})


def tokenizer():
    """What llama_tiny.gguf says: byte-level BPE that splits digits, then words."""
    vocab = {token: i for i, token in enumerate(VOCAB)}
    merges = [tuple(m.split(" ")) for m in MERGES]
    t = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens(SPECIALS)
    fast = PreTrainedTokenizerFast(tokenizer_object=t, bos_token=SPECIALS[1],
                                   eos_token=SPECIALS[2], pad_token=SPECIALS[2])
    fast.chat_template = CHATML
    return fast


def main():
    model = make_model(1, True, **SHAPE)
    folder = HERE / "llama_hf"
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)

    sharded = HERE / "llama_hf_sharded"
    rounded = make_model(1, True, **SHAPE).to(torch.bfloat16)
    rounded.save_pretrained(sharded, max_shard_size="15KB")
    # The older spelling of the rotary keys, as transformers 4 wrote it.
    config = json.loads((sharded / "config.json").read_text())
    config.pop("rope_parameters")
    config |= {"rope_theta": 10000.0, "rope_scaling": None}
    (sharded / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")

    segs = segments(2, len(VOCAB))
    again = LlamaForCausalLM.from_pretrained(sharded, dtype=torch.float32,
                                             attn_implementation="eager").eval()
    with torch.no_grad():
        logits = torch.cat([again(s[None]).logits[0] for s in segs])
    save(sharded / "goldens.safetensors",
         {"tokens": torch.cat(segs).numpy().astype(np.int32), "logits": logits.numpy()},
         versions("torch", "transformers", "safetensors", "numpy", "tokenizers"))
    for path in sorted([*folder.iterdir(), *sharded.iterdir()]):
        print(f"{path.stat().st_size:8d} {path.relative_to(HERE)}")


if __name__ == "__main__":
    main()
