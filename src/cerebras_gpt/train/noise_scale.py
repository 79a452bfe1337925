"""The gradient noise scale, measured on the way: parts of a batch against the whole, on a few of the steps.

The gradients are of the next step's batch, which the weights have not seen, and are thrown away: training takes the
same steps to the same bits with it and without.
"""

import math
import time
from dataclasses import replace

import torch
from torch import Tensor

from cerebras_gpt.data.batches import Batch
from cerebras_gpt.distributed import World
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.plan.noise import KIND, Norms, measured_every, pairs_of
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.record import rows_of
from cerebras_gpt.train.execution import Execution, gradients
from cerebras_gpt.train.trainer import Hook, Trainer

MEMORY = 0.9
"""Share of the average that a new measurement leaves."""


def squared_norms(model: GPT, batch: Batch, execution: Execution) -> Norms:
    """Of the gradients of a batch and of its micro-batches, all equally long; the model is left without gradients.

    Every backward pass is watched where its gradient enters a parameter, so nothing is held beside the sum.
    """
    total = torch.zeros((), dtype=torch.float64, device=batch.ids.device)

    def watch(gradient: Tensor) -> None:
        total.add_(torch.linalg.vector_norm(gradient).double().square())

    handles = [parameter.register_hook(watch) for parameter in model.parameters()]
    try:
        gradients(model, batch, execution, World())
    finally:
        for handle in handles:
            handle.remove()
    norms = [torch.linalg.vector_norm(p.grad).double() for p in model.parameters() if p.grad is not None]
    big = torch.stack(norms).square().sum().item()
    model.zero_grad(set_to_none=True)
    n_parts = len(batch.ids) // execution.micro_batch_size
    # Each part's gradient was divided by the targets of all parts: n_parts^2 times its square, over n_parts of them.
    n_tokens = batch.ids.numel()
    return Norms(n_parts * total.item(), big, n_tokens / n_parts, n_tokens)


def parts(trainer: Trainer) -> tuple[Batch, int]:
    """This process's rows of the next batch and how many make a part: a micro-batch, or half where there is but one."""
    plan, step = trainer.plan, trainer.step
    rows = trainer.world.share(range(plan.batch_size))
    if len(rows) == 1:
        pair = [trainer.batches.rows(step + later, rows) for later in (0, 1)]
        return Batch(*(torch.cat(tensors) for tensors in zip(*pair, strict=True))), 1
    size = trainer.execution.micro_batch_size
    size = size if len(rows) >= 2 * size else len(rows) // 2
    return trainer.batches.rows(step, rows[: len(rows) // size * size]), size


def measure(trainer: Trainer) -> Norms:
    """The norms at this moment of a run."""
    batch, size = parts(trainer)
    batch = Batch(*(tensor.to(trainer.execution.device) for tensor in batch))
    return squared_norms(trainer.model, batch, replace(trainer.execution, micro_batch_size=size))


class Averages:
    """Exponential averages of variance and squared gradient, each alone; a resumed run goes on with its record's."""

    def __init__(self) -> None:
        self.variance = self.squared_gradient = 0.0

    def add(self, variance: float, squared_gradient: float) -> None:
        """Takes a new measurement in."""
        self.variance = MEMORY * self.variance + (1 - MEMORY) * variance
        self.squared_gradient = MEMORY * self.squared_gradient + (1 - MEMORY) * squared_gradient

    @property
    def noise_scale(self) -> float:
        """Tokens; NaN while the gradient is lost in the noise. The weights of both averages are equal and cancel."""
        return self.variance / self.squared_gradient if self.squared_gradient > 0 else math.nan


def noise_hook(plan: Plan) -> Hook:
    """Measures and records the noise scale every so many steps."""
    every = measured_every(plan.steps)
    kept: list[Averages] = []

    def run(trainer: Trainer) -> None:
        if trainer.step % every or trainer.execution.is_sharded:
            return  # the last step comes whenever it comes; a model in shares would need all its processes
        if not kept:
            kept.append(averages_of(trainer))
        started = time.perf_counter()
        found = measure(trainer)
        kept[0].add(found.variance, found.squared_gradient)
        trainer.metrics.write(
            KIND,
            step=trainer.step,
            tokens=trainer.tokens,
            noise_scale=kept[0].noise_scale,
            variance=found.variance,
            squared_gradient=found.squared_gradient,
            measuring_seconds=round(time.perf_counter() - started, 4),
        )

    return Hook(every, run)


def averages_of(trainer: Trainer) -> Averages:
    """The averages up to here, from the record."""
    averages = Averages()
    for variance, squared_gradient in pairs_of(rows_of(trainer.metrics.path, KIND)):
        averages.add(variance, squared_gradient)
    return averages
