"""Our network against transformers' GPT-2 on shared random weights: logits, every gradient, training in lockstep.

    python benchmarks/parity.py --out benchmarks/results/DATE-parity.json

Needs transformers, whose attention is run in its plain form (`eager`). A difference is the largest absolute one in a
tensor over the largest absolute value of theirs. First the seven published shapes in miniature (all layers and heads,
a twentieth as wide), then 111M itself: 50,257 tokens, 2,048 positions, about 4 GB and a few minutes.
tests/test_parity.py holds the miniature figures to their bounds.
"""

import argparse
import json
import math
import tempfile
from dataclasses import replace
from datetime import date
from importlib import metadata
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from cerebras_gpt.data.batches import Batch
from cerebras_gpt.distributed import World
from cerebras_gpt.doctor import environment
from cerebras_gpt.interop.fold import folded
from cerebras_gpt.interop.gpt2 import gpt2_config, gpt2_tensors
from cerebras_gpt.model.gpt import GPT, roles
from cerebras_gpt.plan.families import mup, standard
from cerebras_gpt.plan.plan import Plan, published_plan
from cerebras_gpt.plan.sizes import FAMILIES, SIZES, architecture
from cerebras_gpt.record import read_metrics
from cerebras_gpt.train.execution import Execution, gradients
from cerebras_gpt.train.trainer import Trainer

MACHINE = ("processor", "cores", "instructions", "python", "torch", "numpy")


def miniature(name, vocab_size=101, seq_len=24):
    """A published shape with all its layers and heads, these 3, 4 or 6 wide instead of 64, 80 or 128."""
    shape = architecture(name, vocab_size, seq_len)
    return replace(shape, d_model=shape.n_heads * round(shape.d_head / 20))


@torch.no_grad()
def lively(model, seed=0):
    """Writes weights in which nothing is at its neutral value and every part has its say."""
    generator = torch.Generator().manual_seed(seed)
    depth = math.sqrt(2 * model.architecture.n_layers)
    spread = {"embedding": 0.2, "bias": 0.1, "norm": 0.1}
    for name, parameter, role in roles(model):
        std = spread.get(role) or parameter.shape[-1] ** -0.5 / (depth if role == "residual_out" else 1.0)
        parameter.normal_(0.0, std, generator=generator)
        if role == "norm" and name.endswith("weight"):
            parameter += 1.0
    return model


def theirs(ours):
    """transformers' GPT-2 with the weights of ours."""
    config = GPT2Config(**gpt2_config(ours.architecture, end_of_text=0), attn_implementation="eager")
    model = GPT2LMHeadModel(config)
    weights = gpt2_tensors({name: parameter.detach().clone() for name, parameter in ours.named_parameters()})
    missing, extra = model.load_state_dict(weights, strict=False)
    assert (missing, extra) == (["lm_head.weight"] if ours.architecture.tied else [], [])
    model.tie_weights()
    return model


@torch.no_grad()
def relative(ours, reference):
    """Largest absolute difference over the largest absolute value of the reference."""
    return float((ours - reference).abs().max() / reference.abs().max())


def batch_of(shape, rows, seed=0, length=None):
    """Rows of random tokens, every other one a function of the one before it, so that there is something to learn."""
    length = length or shape.seq_len
    ids = torch.randint(shape.vocab_size, (rows, length + 1), generator=torch.Generator().manual_seed(seed))
    ids[:, 1::2] = (ids[:, :-1:2] * 7 + 3) % shape.vocab_size
    return Batch(ids[:, :-1], ids[:, 1:])


def their_gradients(model, batch):
    """Loss of the batch; its gradients are left in the model."""
    logits = model(input_ids=batch.ids).logits  # (B, T, V)
    loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
    loss.backward()
    return loss.item()


def compare(shape, rows=2, length=None):
    """Relative differences of the logits and of every gradient, ours computed as in training."""
    ours = lively(GPT(shape, standard(shape)))
    other, batch = theirs(ours), batch_of(shape, rows, length=length)
    with torch.no_grad():
        logits = relative(ours(batch.ids), other(input_ids=batch.ids).logits)
    loss = gradients(ours, batch, Execution("float32", rows), World()).item()
    reference = their_gradients(other, batch)
    made = gpt2_tensors({name: parameter.grad for name, parameter in ours.named_parameters()})
    wanted = {name: parameter.grad for name, parameter in other.named_parameters()}
    assert made.keys() == wanted.keys()
    by_name = {name: relative(made[name], wanted[name]) for name in made}
    worst = max(by_name, key=by_name.__getitem__)
    return {
        "logits": logits,
        "loss": abs(loss / reference - 1),
        "gradients": by_name[worst],
        "worst_gradient": worst,
        "tensors": len(by_name),
    }


@torch.no_grad()
def compare_folded(name):
    """Relative difference of the logits of a muP miniature and of transformers' GPT-2 with its folded weights.

    The miniature has the width multiplier of its size, and so all the scales that are to be folded.
    """
    shape, published = miniature(name), published_plan(name, "mup").parametrization
    ours = lively(GPT(shape, replace(mup(shape), width_multiplier=published.width_multiplier))).eval()
    ids = batch_of(shape, rows=2).ids
    return relative(ours(ids), theirs(folded(ours)).eval()(input_ids=ids).logits)


class Copies:
    """The batches of a run: those of `batch_of`, one seed a step."""

    def __init__(self, plan, length):
        self.plan, self.length = plan, length

    def rows(self, step, rows):
        batch = batch_of(self.plan.architecture, self.plan.batch_size, step, self.length)
        return Batch(batch.ids[list(rows)], batch.targets[list(rows)])


def our_path(plan, model, batches):
    """Loss of every step as our Trainer takes it."""
    execution = Execution("float32", plan.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(replace(plan, saves=1), model, batches, Path(folder), execution, World())
        trainer.run()
        return [row["loss"] for row in read_metrics(Path(folder) / "metrics.jsonl")]


def their_path(plan, model, batches):
    """The same with torch's plain AdamW and a schedule and groups written from the paper's words alone."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=plan.peak_lr, betas=(0.9, 0.95), eps=1e-8, foreach=True)
    losses = []
    for step in range(plan.steps):
        done = (step + 1 - plan.warmup_steps) / (plan.steps - plan.warmup_steps)
        share = 1 - 0.9 * done if done > 0 else (step + 1) / plan.warmup_steps
        for group in adamw.param_groups:
            group["lr"] = share * plan.peak_lr
        losses.append(their_gradients(model, batches.rows(step, range(plan.batch_size))))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad()
    return losses


def lockstep(plan, length=None):
    """Both trained from the same weights on the same batches: largest differences of losses and final weights.

    A key's bias changes no attention weight, so its gradient is rounding alone, which Adam makes as large as any
    other: biases of keys go their own way without effect, and are left out of the comparison.
    """
    ours = lively(GPT(plan.architecture, plan.parametrization))
    other = theirs(ours)
    batches = Copies(plan, length)
    losses, reference = our_path(plan, ours, batches), their_path(plan, other, batches)
    made = gpt2_tensors({name: parameter.detach() for name, parameter in ours.named_parameters()})
    wanted = {name: parameter.detach() for name, parameter in other.named_parameters()}
    d = plan.architecture.d_model
    for tensors in (made, wanted):
        for name in [name for name in tensors if name.endswith("c_attn.bias")]:
            tensors[name] = torch.cat([tensors[name][:d], tensors[name][2 * d :]])
    by_name = {name: relative(made[name], wanted[name]) for name in made}
    worst = max(by_name, key=by_name.__getitem__)
    differences = [abs(a / b - 1) for a, b in zip(losses, reference, strict=True)]
    return {
        "steps": plan.steps,
        "first_and_last_loss": [losses[0], losses[-1]],
        "losses": max(differences),
        "weights": by_name[worst],
        "worst_weight": worst,
    }


def small_run(name="111M", steps=100, batch_size=4):
    """A plan of a miniature with the published optimizer settings, and a rate that moves so small a model."""
    shape = miniature(name)
    return Plan("parity", shape, standard(shape), batch_size, steps, warmup_steps=steps // 10, peak_lr=3e-3)


def real_run(steps, batch_size):
    """The plan of 111M cut short: its peak is reached at once, so that every step moves the weights."""
    return replace(published_plan("111M"), batch_size=batch_size, steps=steps, warmup_steps=1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    machine = {key: value for key, value in environment().items() if key in MACHINE}
    machine["transformers"] = metadata.version("transformers")
    found = {"date": date.today().isoformat(), "threads": given.threads, "machine": machine}
    variants = {
        "gelu_new": {"activation": "gelu_new"},
        "relu": {"activation": "relu"},
        "untied": {"tied": False},
        "narrow feed-forward": {"ffn_multiple": 2.5},
    }
    parts = {
        "miniature": lambda: {name: compare(miniature(name)) for name in SIZES},
        "variants": lambda: {name: compare(replace(miniature("111M"), **change)) for name, change in variants.items()},
        "folded": lambda: {name: compare_folded(name) for name in FAMILIES["mup"]},
        "lockstep": lambda: lockstep(small_run()),
        "111M, 1,024 tokens": lambda: compare(architecture("111M"), rows=1, length=1024),
        "111M, lockstep on 2 x 256 tokens": lambda: lockstep(real_run(steps=5, batch_size=2), length=256),
    }
    for name, part in parts.items():
        found[name] = part()
        print(name, json.dumps(found[name], indent=1), flush=True)
        given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
