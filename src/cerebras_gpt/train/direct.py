"""What a coordinate check cannot see: every tensor's std, rate, decay and epsilon, and the forward factors, one by one.

All of it is written here a second time from the papers and shares nothing with `model.parametrization`, `roles` or
`GPT.hidden`, so that an error there has nothing to agree with.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.plan.families import Base
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.train.optim import AdamW, Group

CUT_STD = 0.8796
"""Standard deviation of a unit normal cut at two of its own."""

STD_SLACK = 0.01
"""How far a tensor's std may be off, on top of five standard errors."""

LOGIT_SLACK = 1e-4
"""Largest relative difference of logits in float32 from the slow computation in float64."""


class Powers(NamedTuple):
    """Powers of width ratio m, depth ratio r and 2 L by which a kind of tensor differs from the base."""

    std_of_m: float = 0.0
    std_of_twice_depth: float = 0.0
    lr_of_m: float = 0.0
    decays: bool = True
    decay_of_m: float = 0.0
    eps_of_m: float = 0.0
    eps_of_r: float = 0.0


_SHRINKING = Powers(std_of_m=-0.5, lr_of_m=-1)
_COMPLETE = Powers(std_of_m=-0.5, lr_of_m=-1, decay_of_m=1, eps_of_m=-1, eps_of_r=-1)

PROMISED: dict[str, dict[str, Powers]] = {
    "sp": {
        "tables": Powers(),
        "inner": Powers(),
        "into the stream": Powers(std_of_twice_depth=-0.5),
        "constants": Powers(decays=False),
    },
    "mup": {
        "tables": Powers(),
        "inner": _SHRINKING,
        "into the stream": _SHRINKING._replace(std_of_twice_depth=-0.5),
        "constants": Powers(decays=False),
    },
    "completep": {
        "tables": Powers(eps_of_m=-1),
        "inner": _COMPLETE,
        "into the stream": _COMPLETE,
        "constants": Powers(decays=False, eps_of_m=-1, eps_of_r=-1),
    },
}
"""SP: GPT-2. muP: Dey et al. 2023, section 2.3. CompleteP: Dey et al. 2025, arXiv 2505.01618, table 1, alpha = 1."""

FORWARD_POWERS = {"sp": (-0.5, 0.0, 0.0), "mup": (-1.0, -1.0, 0.0), "completep": (-1.0, -1.0, -1.0)}
"""Powers of the head width in attention, of m in the logits, and of r in what a branch adds to the stream."""

WEIGHTS = {
    "token_embedding": "tables",
    "position_embedding": "tables",
    "projection": "tables",
    "head": "tables",
    "qkv": "inner",
    "up": "inner",
    "out": "into the stream",
    "down": "into the stream",
}
"""The kind of a module's weight, by the module's own name; every other tensor is a constant at the start."""


def kind(name: str) -> str:
    """The kind of the parameter of that name.

    >>> kind("blocks.0.attention.qkv.weight"), kind("blocks.0.attention.qkv.bias")
    ('inner', 'constants')
    """
    *_, module, tensor = name.split(".")
    return WEIGHTS.get(module, "constants") if tensor == "weight" else "constants"


@dataclass(frozen=True)
class Promise:
    """What a parametrization by that name promises for a shape, from a base."""

    name: str
    base: Base
    architecture: Architecture

    @property
    def width_ratio(self) -> float:
        """m."""
        return self.architecture.d_model / self.base.d_model

    @property
    def depth_ratio(self) -> float:
        """r."""
        return self.architecture.n_layers / self.base.n_layers

    def std(self, name: str) -> float:
        """Standard deviation at the start of the parameter of that name, 0 for constants."""
        powers = PROMISED[self.name][kind(name)]
        if kind(name) == "constants":
            return 0.0
        shrunk = self.width_ratio**powers.std_of_m * (2 * self.architecture.n_layers) ** powers.std_of_twice_depth
        return CUT_STD * self.base.init_std * shrunk

    def group(self, name: str, plan: Plan) -> tuple[float, float, float]:
        """Learning rate, weight decay and epsilon at the plan's peak of the parameter of that name."""
        powers, m, r = PROMISED[self.name][kind(name)], self.width_ratio, self.depth_ratio
        decay = plan.weight_decay * m**powers.decay_of_m if powers.decays else 0.0
        return plan.peak_lr * m**powers.lr_of_m, decay, plan.adam_eps * m**powers.eps_of_m * r**powers.eps_of_r


def broken_groups(model: GPT, adamw: AdamW, plan: Plan, promise: Promise) -> list[str]:
    """What is wrong with the optimizer's groups once their rate is the plan's peak: a line for each parameter."""
    groups: dict[int, list[Group]] = {}
    for group in adamw.param_groups:
        for parameter in group["params"]:
            groups.setdefault(id(parameter), []).append(group)
    lines = []
    for name, parameter in model.named_parameters():
        mine = groups.get(id(parameter), [])
        if len(mine) != 1:
            lines.append(f"{name} is in {len(mine)} groups")
            continue
        found = (mine[0]["lr"], mine[0]["weight_decay"], mine[0]["eps"])
        for what, ours, right in zip(("lr", "decay", "eps"), found, promise.group(name, plan), strict=True):
            if not math.isclose(ours, right, rel_tol=1e-9):
                lines.append(f"{name}: {what} is {ours:.4g}, not {right:.4g}")
    return lines


def broken_start(model: GPT, promise: Promise) -> list[str]:
    """Which tensors do not start as promised: a line for each."""
    lines = []
    for name, parameter in model.named_parameters():
        right = promise.std(name)
        if right == 0:
            constant = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            lines += [] if bool((parameter == constant).all()) else [f"{name} is not {constant:g} everywhere"]
            continue
        ours, slack = parameter.std().item(), STD_SLACK + 5 / math.sqrt(2 * parameter.numel())
        if abs(ours / right - 1) > slack:
            lines.append(f"{name}: std is {ours:.4g}, not {right:.4g}")
    return lines


def broken_forward(model: GPT, promise: Promise) -> list[str]:
    """Whether the logits are not those of the slow computation with the promised factors: one line, or none."""
    chance = torch.Generator().manual_seed(0)
    shape = model.architecture
    ids = torch.randint(shape.vocab_size, (2, min(shape.seq_len, 12)), generator=chance)  # (B, T)
    for parameter in model.parameters():  # biases and norms too, so that each of them matters
        parameter.data += (
            0.1 * parameter.std(correction=0).clamp_min(0.1) * torch.randn(parameter.shape, generator=chance)
        )
    right = slow_logits(dict(model.named_parameters()), promise, ids)
    with torch.no_grad():
        ours = model(ids).double()
    off = ((ours - right).abs().max() / right.abs().max()).item()
    return [] if off <= LOGIT_SLACK else [f"logits are {off:.2g} (relative) off the slow computation"]


def slow_logits(named: dict[str, nn.Parameter], promise: Promise, ids: Tensor) -> Tensor:
    """The network in float64, head by head, from its tensors and the promised factors alone: (B, T) -> (B, T, V)."""
    w = {name: parameter.detach().double() for name, parameter in named.items()}
    shape, base = promise.architecture, promise.base
    attention, logits, residual = FORWARD_POWERS[promise.name]
    branch = promise.depth_ratio**residual

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        spread = (centred.square().mean(-1, keepdim=True) + shape.layer_norm_eps).sqrt()
        return centred / spread * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = w["token_embedding.weight"][ids] + w["position_embedding.weight"][: ids.shape[1]]  # (B, T, E)
    x = x @ w["projection.weight"].T if "projection.weight" in w else x  # (B, T, C)
    x = x * base.embedding_scale
    for i in range(shape.n_layers):
        block = f"blocks.{i}"
        qkv = linear(norm(x, f"{block}.norm_attention"), f"{block}.attention.qkv")  # (B, T, 3 C)
        mixed = _heads(qkv, shape.n_heads, shape.d_head**attention)
        x = x + branch * linear(mixed, f"{block}.attention.out")
        up = linear(norm(x, f"{block}.norm_feed_forward"), f"{block}.feed_forward.up")  # (B, T, F)
        x = x + branch * linear(_activated(up, shape.activation), f"{block}.feed_forward.down")
    table = w.get("head.weight", w["token_embedding.weight"])
    return norm(x, "norm") @ table.T * base.output_alpha * promise.width_ratio**logits


def _heads(qkv: Tensor, n_heads: int, scale: float) -> Tensor:
    """Causal attention, one head after the other: (B, T, 3 C) -> (B, T, C)."""
    T, C = qkv.shape[1], qkv.shape[2] // 3
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    mixed = []
    for head in torch.arange(C).chunk(n_heads):
        q, k, v = qkv[..., head], qkv[..., C + head], qkv[..., 2 * C + head]  # (B, T, D) each
        scores = (q @ k.mT * scale).masked_fill(future, -math.inf)
        mixed.append(scores.softmax(-1) @ v)
    return torch.cat(mixed, -1)


def _activated(x: Tensor, activation: str) -> Tensor:
    """The nonlinearity by its formula."""
    if activation == "relu":
        return x.clamp_min(0)
    if activation == "gelu":
        return x * (1 + torch.erf(x / math.sqrt(2))) / 2
    return x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
