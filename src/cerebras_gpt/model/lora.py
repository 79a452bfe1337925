"""Low-rank updates of linear layers (Hu et al. 2021): few numbers are learned, and merged they are plain weights."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cerebras_gpt.model.gpt import GPT, Linear
from cerebras_gpt.model.parametrization import Role

ADAPTED: tuple[Role, ...] = ("hidden", "residual_out")
"""Roles whose layers get an update: every matrix of a block."""


class Factor(nn.Linear):
    """One of the two thin matrices, with its role."""

    def __init__(self, n_in: int, n_out: int, role: Role) -> None:
        super().__init__(n_in, n_out, bias=False)
        self.role = role

    def reset_parameters(self) -> None:
        """Nothing: `add_low_rank` writes them, from the table."""


class LowRankLinear(nn.Module):
    """A frozen linear layer plus scale * up @ down, computed as one matrix.

    So merging changes no bit of any output; the update costs little beside the products with many tokens.
    """

    def __init__(self, linear: Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.linear, self.scale = linear, scale
        self.down = Factor(linear.in_features, rank, role="low_rank_in")
        self.up = Factor(rank, linear.out_features, role="low_rank_out")

    @property
    def weight(self) -> Tensor:
        """The matrix with its update: (n_out, n_in)."""
        return self.linear.weight + self.scale * (self.up.weight @ self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., n_in) -> (..., n_out)."""
        return F.linear(x, self.weight.to(x.dtype), self.linear.bias.to(x.dtype))


@torch.no_grad()
def add_low_rank(model: GPT, rank: int, generator: torch.Generator, scale: float = 1.0) -> GPT:
    """The model with updates of that rank on every layer of an adapted role, all else frozen; they start at nothing."""
    model.requires_grad_(False)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, Linear) and child.role in ADAPTED:
                check_rank(rank, child)
                wrapped = LowRankLinear(child, rank, scale)
                std = model.parametrization.row("low_rank_in").init_std
                wrapped.down.weight.normal_(0.0, std, generator=generator)
                wrapped.up.weight.zero_()
                setattr(module, name, wrapped)
    return model


def check_rank(rank: int, linear: Linear) -> None:
    """Refuses a rank that is none, or no saving."""
    most = min(linear.in_features, linear.out_features)
    if not 1 <= rank <= most:
        raise ValueError(f"a low-rank update of rank {rank} is not possible here; choose 1 to {most}")


def low_rank_layers(model: GPT) -> dict[str, LowRankLinear]:
    """The layers that have updates, by the name of the layer they stand for."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LowRankLinear)}


@torch.no_grad()
def merged(model: GPT) -> dict[str, Tensor]:
    """Every parameter under its plain name, updates added in; of a model without updates simply its parameters."""
    weights: dict[str, Tensor] = {}
    layers = low_rank_layers(model)
    for name, parameter in model.named_parameters():
        owner, _, last = name.rpartition(".linear.")
        if owner not in layers:
            if name.rsplit(".", 2)[0] not in layers:
                weights[name] = parameter
        elif last == "bias":
            weights[f"{owner}.bias"] = parameter
        else:
            weights[f"{owner}.weight"] = layers[owner].weight
    return weights
