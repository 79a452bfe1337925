"""Low-rank updates of matrices (Hu et al. 2021): few numbers are learned, and merged they are plain weights."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cerebras_gpt.model.gpt import GPT, Embedding, Linear
from cerebras_gpt.model.parametrization import Role

ADAPTED: tuple[Role, ...] = ("hidden", "residual_out")
"""Roles whose layers get an update: every matrix of a block."""
TABLE = "token_embedding"
"""The table that gets one as well: a small model keeps much of what it knows of words there (docs/adapt.md)."""


class Factor(nn.Linear):
    """One of the two thin matrices, with its role."""

    def __init__(self, n_in: int, n_out: int, role: Role) -> None:
        super().__init__(n_in, n_out, bias=False)
        self.role = role

    def reset_parameters(self) -> None:
        """Nothing: `add_low_rank` writes them, from the table."""


class LowRank(nn.Module):
    """A frozen module's matrix plus scale * up @ down, computed as one matrix.

    So merging changes no bit of any output; the update costs little beside the products with many tokens.
    """

    def __init__(self, plain: Linear | Embedding, rank: int, scale: float, roles: tuple[Role, Role]) -> None:
        super().__init__()
        n_rows, n_columns = plain.weight.shape
        self.plain, self.scale = plain, scale
        self.down = Factor(n_columns, rank, role=roles[0])
        self.up = Factor(rank, n_rows, role=roles[1])

    @property
    def weight(self) -> Tensor:
        """The matrix with its update: (n_rows, n_columns)."""
        return self.plain.weight + self.scale * (self.up.weight @ self.down.weight)


class LowRankLinear(LowRank):
    """A linear layer with an update."""

    plain: Linear

    def __init__(self, plain: Linear, rank: int, scale: float) -> None:
        super().__init__(plain, rank, scale, ("low_rank_in", "low_rank_out"))

    def forward(self, x: Tensor) -> Tensor:
        """(..., n_in) -> (..., n_out)."""
        return F.linear(x, self.weight.to(x.dtype), self.plain.bias.to(x.dtype))


class LowRankEmbedding(LowRank):
    """A table of vectors with an update; where the head shares the table it shares the update."""

    def __init__(self, plain: Embedding, rank: int, scale: float) -> None:
        super().__init__(plain, rank, scale, ("low_rank_table", "low_rank_table"))

    def forward(self, ids: Tensor) -> Tensor:
        """(...) -> (..., E)."""
        return F.embedding(ids, self.weight)


@torch.no_grad()
def add_low_rank(model: GPT, rank: int, generator: torch.Generator, scale: float = 1.0) -> GPT:
    """The model with updates of that rank on the token table and on every layer of an adapted role, all else frozen.

    They start at nothing.
    """
    model.requires_grad_(False)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Linear) and child.role in ADAPTED:
                setattr(module, name, _begun(LowRankLinear(child, checked(rank, child), scale), model, generator))
    table = model.get_submodule(TABLE)
    assert isinstance(table, Embedding)
    setattr(model, TABLE, _begun(LowRankEmbedding(table, checked(rank, table), scale), model, generator))
    return model


def _begun(update: LowRank, model: GPT, generator: torch.Generator) -> LowRank:
    std = model.parametrization.row(update.down.role).init_std
    update.down.weight.normal_(0.0, std, generator=generator)
    update.up.weight.zero_()
    return update


def checked(rank: int, plain: nn.Module) -> int:
    """The rank; refuses one that is none, or no saving."""
    most = min(plain.weight.shape)  # type: ignore[arg-type]
    if not 1 <= rank <= most:
        raise ValueError(f"a low-rank update of rank {rank} is not possible here; choose 1 to {most}")
    return rank


def low_rank_layers(model: GPT) -> dict[str, LowRank]:
    """The modules that have updates, by the name of the one they stand for."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LowRank)}


@torch.no_grad()
def merged(model: GPT) -> dict[str, Tensor]:
    """Every parameter under its plain name, updates added in; of a model without updates simply its parameters."""
    weights: dict[str, Tensor] = {}
    layers = low_rank_layers(model)
    for name, parameter in model.named_parameters():
        owner, _, last = name.rpartition(".plain.")
        if owner not in layers:
            if name.rsplit(".", 2)[0] not in layers:
                weights[name] = parameter
        elif last == "bias":
            weights[f"{owner}.bias"] = parameter
        else:
            weights[f"{owner}.weight"] = layers[owner].weight
    return weights
