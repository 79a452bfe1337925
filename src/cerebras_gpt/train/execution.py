"""How a step is computed on this machine: nothing here changes its result beyond rounding."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from cerebras_gpt.data.batches import Batch
from cerebras_gpt.distributed import World, fold_tree
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.model.loss import IGNORED, summed_loss
from cerebras_gpt.train.device import attend_by_flash, fuse, same_bits

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Execution:
    """The choices that only the machine cares about."""

    dtype: str = "float32"
    """Of the residual stream and the products; weights, gradients and optimizer stay float32."""
    micro_batch_size: int = 8
    """Sequences computed at a time; the gradient is that of the whole batch."""
    device: str = "cpu"
    parts: int = 4
    """Parts of a batch whose gradients are summed as a binary tree, a power of two: 1, 2, 4 ... processes, up to so
    many, agree to the last bit. Costs one copy of the gradient for each time that a process' parts can be halved."""
    shards: int = 1
    """Processes that each hold only a share of the weights, gradients and optimizer; 1 if every process holds all."""
    offload: bool = False
    """Whether weights, gradients and optimizer lie in the host's memory and a GPU gathers a block at a time."""
    recompute: bool = False
    """Whether the backward pass computes each block again instead of keeping what it needs: less memory, a third more
    work, the same bits."""

    compiled: bool = False
    """Whether torch's compiler joins what lies between the products of a block: it takes seconds, once."""

    @property
    def is_sharded(self) -> bool:
        """Whether a process holds no weight whole where it computes."""
        return self.shards > 1 or self.offload

    def placed(self, model: GPT) -> GPT:
        """The model where and as it is to compute."""
        if self.device == "cuda":
            same_bits()
            if self.dtype == "bfloat16":
                attend_by_flash(model)
        if self.compiled:
            fuse(model.blocks)
        return model if self.is_sharded else model.to(self.device)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch knows it."""
        return DTYPES[self.dtype]

    def parts_of(self, n_rows: int, world: World) -> list[range]:
        """The rows of each part of a batch: whole micro-batches, as evenly as can be; with few, some are empty.

        A world that the parts cannot be dealt out to evenly gets a part for each process: then rounding differs.
        """
        n_parts = self.parts if self.parts % world.size == 0 else world.size
        n_micro_batches = -(-n_rows // self.micro_batch_size)
        ends = [min(n_rows, i * n_micro_batches // n_parts * self.micro_batch_size) for i in range(n_parts + 1)]
        return [range(first, last) for first, last in pairwise(ends)]

    def rows(self, n_rows: int, world: World) -> range:
        """The rows of a global batch that this process computes."""
        mine = world.block(self.parts_of(n_rows, world))
        return range(mine[0].start, mine[-1].stop)


class Whole(NamedTuple):
    """The global batch, whose mean is taken."""

    n_rows: int
    n_targets: Tensor
    """(), float32."""


def backward(model: GPT, batches: Iterable[Batch], execution: Execution, whole: Whole) -> Tensor:
    """Adds the gradients of micro-batches to the parameters; gives their part of the mean loss: ()."""
    total = torch.zeros((), dtype=torch.float32, device=whole.n_targets.device)
    for batch in batches:
        hidden = model.hidden(batch.ids, dtype=execution.torch_dtype, recompute=execution.recompute)  # (b, T, C)
        loss = summed_loss(hidden, model.head_table, batch.targets) / whole.n_targets
        loss.backward()
        total += loss.detach()
    return total


def settle(model: GPT) -> None:
    """Lets go of the tables that a forward pass gathered of a model in shares, where no backward pass does."""
    let_go = getattr(model, "reshard", None)
    if let_go is not None:
        let_go()


def pieces(batch: Batch, rows: range, size: int) -> list[Batch]:
    """The given rows, so many at a time."""
    cuts = [slice(first, min(first + size, rows.stop)) for first in range(rows.start, rows.stop, size)]
    return [Batch(*(tensor[cut] for tensor in batch)) for cut in cuts]


def tree_sums(model: GPT, batch: Batch, execution: Execution, world: World, whole: Whole) -> Tensor:
    """`gradients` where every process holds all weights: parts one after the other, their sums as a binary tree."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    first = execution.rows(whole.n_rows, world).start

    def taken(rows: range) -> list[Tensor] | None:
        if not rows:
            return None
        here = range(rows.start - first, rows.stop - first)
        loss = backward(model, pieces(batch, here, execution.micro_batch_size), execution, whole)
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        for parameter in parameters:
            parameter.grad = None
        return [loss, *found]

    parts = execution.parts_of(whole.n_rows, world)
    summed = fold_tree(world.block(parts), taken)
    if summed is None:
        summed = [torch.zeros_like(whole.n_targets), *map(torch.zeros_like, parameters)]
    present = [any(World(rank, world.size).block(parts)) for rank in range(world.size)]
    world.sum_as_tree(summed, present)
    for parameter, gradient in zip(parameters, summed[1:], strict=True):
        parameter.grad = gradient
    return summed[0]


def sharded_sums(model: GPT, batch: Batch, execution: Execution, world: World, whole: Whole) -> Tensor:
    """`gradients` where no process holds all weights: FSDP2 gathers weights and sums gradients in every micro-batch.

    So all processes must compute equally many; who has no rows left computes one whose targets are all ignored.
    """
    size = execution.micro_batch_size
    most = max(-(-len(execution.rows(whole.n_rows, World(rank, world.size))) // size) for rank in range(world.size))
    T = batch.ids.shape[1]
    nothing = Batch(batch.ids.new_zeros(1, T), batch.targets.new_full((1, T), IGNORED))
    mine = pieces(batch, range(len(batch.ids)), size)
    total = backward(model, [*mine, *[nothing] * (most - len(mine))], execution, whole)
    world.sum_([total])
    return total


def gradients(model: GPT, batch: Batch, execution: Execution, world: World) -> Tensor:
    """Gives the parameters the gradient of the global batch's mean loss; returns that loss in nats per token.

    `batch` is the rows that `Execution.rows` gives this process. The mean is over all targets of the global batch, so
    accumulation and many processes change only rounding, and that only where `Execution.parts_of` says so.
    """
    counts = torch.tensor([len(batch.ids), int((batch.targets != IGNORED).sum())], device=batch.ids.device)
    world.sum_([counts])
    n_rows, targets = int(counts[0]), counts[1].to(torch.float32)
    total = sharded_sums if execution.is_sharded else tree_sums
    return total(model, batch, execution, world, Whole(n_rows, targets))
