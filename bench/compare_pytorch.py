"""PyTorch + PEFT doing the work of bench_train_step: one configuration, timed.

    python compare_pytorch.py MODEL.gguf BATCHES --selector ist --dtype bf16

BATCHES is what `bench_train_step --batches FILE` wrote: the token ids of every optimizer
step and of every probe, so that both sides compute on the same tokens; or SAMPLESxLENGTH,
as in 4x256: random ids of that shape, three steps (for bench/memory.sh). Prints one line:
tokens/s (real tokens only), peak resident memory, losses. The method is that of the IST
paper (Yao et al. 2024) with its settings; see docs/method.md.
"""
import argparse
import re
import time

import torch
import transformers
from peft import LoraConfig, get_peft_model

DROPOUT = 0.05
TARGETS = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
SUPPRESS, FACTOR = 0.5, 0.25
PROBE_EVERY, CANDIDATES, SCORE_STEP = 10, 3, 10.0


def read_batches(path):
    """[(probe samples or None, training samples)], a sample being a list of ids."""
    shape = re.fullmatch(r"(\d+)x(\d+)", path)
    if shape:
        torch.manual_seed(7)
        ids = torch.randint(1000, 40000, (3, int(shape[1]), int(shape[2])))
        return [([], samples.tolist()) for samples in ids]
    steps = []
    for line in open(path):
        kind, *ids = line.split()
        if kind == "step":
            steps.append(([], []))
        else:
            steps[-1][0 if kind == "probe" else 1].append([int(i) for i in ids])
    return steps


def collate(samples):
    longest = max(len(s) for s in samples)
    ids = torch.zeros(len(samples), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, s in enumerate(samples):
        ids[i, : len(s)] = labels[i, : len(s)] = torch.tensor(s)
        mask[i, : len(s)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class Ist:
    """Scores and draws of the paper; `layers` lists the LoRA modules of every layer."""

    def __init__(self, layers, selector, active):
        self.layers, self.selector, self.active = layers, selector, active
        self.score = torch.zeros(len(layers))
        torch.manual_seed(42)

    def draw(self, weights, share):
        n = max(1, int(len(self.layers) * share))
        return torch.multinomial(weights, n, replacement=False).tolist()

    def activate(self):
        if self.selector == "all":
            return
        uniform = self.selector == "random"
        weights = torch.ones_like(self.score) if uniform else torch.sigmoid(-self.score)
        chosen = set(self.draw(weights, self.active))
        for i, modules in enumerate(self.layers):
            for m in modules:
                for p in (m.lora_A.default.weight, m.lora_B.default.weight):
                    p.requires_grad_(i in chosen)

    @torch.no_grad()
    def probe(self, model, batch):
        model.eval()
        p, sets, rewards = torch.sigmoid(self.score), [], []
        for _ in range(CANDIDATES):
            chosen = self.draw(p, SUPPRESS)
            for i in chosen:
                for m in self.layers[i]:
                    m.scaling["default"] *= FACTOR
            rewards.append(torch.exp(-model(**batch).loss.float()))
            for i in chosen:
                for m in self.layers[i]:
                    m.scaling["default"] /= FACTOR
            sets.append(chosen)
        mean = sum(rewards) / len(rewards)
        for chosen, r in zip(sets, rewards):
            for i in chosen:
                self.score[i] += SCORE_STEP * (r - mean) * p[i] * (1 - p[i])
        model.train()


def build(args):
    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    folder, _, name = args.model.rpartition("/")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder or ".", gguf_file=name, dtype=dtype
    )
    model.config.use_cache = False
    config = LoraConfig(
        r=args.rank, lora_alpha=2 * args.rank, lora_dropout=DROPOUT, target_modules=TARGETS,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, config)
    if args.checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    layers = [
        [m for m in layer.modules() if hasattr(m, "lora_A")]
        for layer in model.base_model.model.model.layers
    ]
    return model.train(), layers


def peak_bytes():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("batches")
    parser.add_argument("--selector", choices=["ist", "random", "all"], default="ist")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="bf16")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--active", type=float, default=0.25)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warm", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    model, layers = build(args)
    ist = Ist(layers, args.selector, args.active)
    parameters = [p for n, p in model.named_parameters() if "lora_" in n]
    optimizer = torch.optim.AdamW(parameters, lr=2e-4, weight_decay=0.0)
    losses, tokens, seconds, probe_seconds = [], 0, 0.0, 0.0
    for step, (probe, samples) in enumerate(read_batches(args.batches)):
        start = time.perf_counter()
        if args.selector == "ist" and probe:
            ist.probe(model, collate(probe))
            probed = time.perf_counter() - start
        else:
            probed = 0.0
        ist.activate()
        for group in optimizer.param_groups:
            group["lr"] = 2e-4 * min(step / 100, 1)
        loss = model(**collate(samples)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in parameters if p.grad is not None], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step >= args.warm:
            seconds += time.perf_counter() - start
            probe_seconds += probed
            tokens += sum(len(s) for s in samples)
    print(
        f"speed     {tokens / seconds:.1f} tokens/s "
        f"({tokens / (seconds - probe_seconds):.1f} without probes), "
        f"losses {losses[0]:.4f} {losses[-1]:.4f}, peak {peak_bytes() / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    main()
