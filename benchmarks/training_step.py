"""A whole training step of small models: ours against a plain torch loop, alternating in one run.

    python benchmarks/training_step.py --out benchmarks/results/DATE-training-step.json

The plain loop is what one writes by hand: the same decoder with torch's attention, autocast to bfloat16,
cross_entropy on all logits, fused AdamW. Each side runs in processes of its own, ours as `pretrain` sets them up,
the plain one untouched, and once more with our memory setting to tell its share; ours once more with its blocks
compiled, to tell what that would give. Believe ratios, not seconds.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

from cerebras_gpt.process import n_cores, processor

SHAPES = {"1.7M": (192, 2, 3, 4096, 256, 8), "10M": (320, 8, 5, 8192, 512, 8)}
SIDES = ("plain", "plain + memory kept", "ours", "ours compiled")
STEPS, ROUNDS = 12, 3


def build(shape):
    import torch

    from cerebras_gpt.model.architecture import Architecture
    from cerebras_gpt.model.gpt import GPT, initialize
    from cerebras_gpt.plan.families import mup
    from cerebras_gpt.plan.plan import Plan

    d_model, n_layers, n_heads, vocab_size, seq_len, batch_size = shape
    architecture = Architecture(d_model, n_layers, n_heads, vocab_size, seq_len)
    plan = Plan("bench", architecture, mup(architecture), batch_size, steps=2, warmup_steps=1, peak_lr=1e-3)
    model = initialize(GPT(architecture, plan.parametrization), torch.Generator().manual_seed(0))
    ids = torch.randint(vocab_size, (batch_size, seq_len + 1), generator=torch.Generator().manual_seed(1))
    return plan, model, ids


def our_step(plan, model, ids):
    from cerebras_gpt.data.batches import Batch
    from cerebras_gpt.distributed import World
    from cerebras_gpt.train.execution import Execution, gradients

    batch, execution = Batch(ids[:, :-1], ids[:, 1:]), Execution("bfloat16", plan.batch_size)
    return lambda: gradients(model, batch, execution, World()).item()


def plain_step(plan, model, ids):
    import torch
    from torch.nn import functional as F

    def attention(qkv, scale):
        return F.scaled_dot_product_attention(*qkv.unbind(0), is_causal=True, scale=scale)

    from cerebras_gpt.model import gpt

    gpt.causal_attention = attention
    gpt.Linear.forward = torch.nn.Linear.forward
    gpt.LayerNorm.forward = torch.nn.LayerNorm.forward

    def step():
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(ids[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        return loss.item()

    return step


def run_side(side, shape):
    from cerebras_gpt.process import bind_threads, keep_memory

    bind_threads()
    if side != "plain":
        keep_memory()
    import torch

    plan, model, ids = build(shape)
    if side == "ours compiled":
        for block in model.blocks:
            block.compile(dynamic=False)
    step = (our_step if side.startswith("ours") else plain_step)(plan, model, ids)
    adamw = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
    spent = []
    for _ in range(STEPS):
        started = time.perf_counter()
        loss = step()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        spent.append(time.perf_counter() - started)
    median = statistics.median(spent[3:])
    print(json.dumps({"tokens_per_second": plan.tokens_per_step / median, "first_seconds": spent[0], "loss": loss}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.side:
        run_side(given.side, SHAPES[given.shape])
        return
    found = {}
    for name in SHAPES:
        runs = {side: [] for side in SIDES}
        for _ in range(ROUNDS):
            for side in SIDES:
                command = [sys.executable, __file__, "--side", side, "--shape", name]
                out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                runs[side].append(json.loads(out))
        found[name] = {
            side: {key: statistics.median(run[key] for run in done) for key in done[0]} for side, done in runs.items()
        }
        plain = found[name]["plain"]["tokens_per_second"]
        for side, run in found[name].items():
            run["times_plain"] = run["tokens_per_second"] / plain
            rate = f"{run['tokens_per_second']:>9,.0f} tokens/s   {run['times_plain']:.2f} x plain"
            print(f"{name:<6} {side:<20} {rate}   first step {run['first_seconds']:.1f} s", flush=True)
    if given.out:
        machine = {"processor": processor(), "cores": n_cores(), "python": platform.python_version()}
        given.out.write_text(json.dumps({"date": str(date.today()), **machine, "shapes": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
