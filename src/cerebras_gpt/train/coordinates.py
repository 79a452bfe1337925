"""The coordinate check's measurement: how large every activation is, and how much training changes it, at each size.

The recipe's own optimizer, gradients, initialisation and roles are used, so that an error in any of them shows
(Yang et al. 2022, section D.1; Dey et al. 2025, arXiv 2505.01618, for the depth).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

import torch

from cerebras_gpt.data.batches import Batch
from cerebras_gpt.distributed import World
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.model.parametrization import Parametrization
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.train.activations import activations
from cerebras_gpt.train.execution import Execution, gradients
from cerebras_gpt.train.optim import learning_rate, optimizer, set_learning_rate

Axis = Literal["width", "head", "depth"]
Table = Callable[[Architecture], Parametrization]

MOMENTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Steps after which the change is measured, as far as the run goes; its last step comes on top."""


class StepBatches(Protocol):
    """A pure function from the step to its batch."""

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""


class Size(NamedTuple):
    """Mean |x| of one kind of activation at one place of a sweep."""

    quantity: str
    step: int
    """0: as initialised; later: the change since then, on the same batch."""
    x: int
    """Width, head width or depth."""
    seed: int
    mean: float


@dataclass(frozen=True)
class Sweep:
    """The same recipe at several values of one side of the shape."""

    axis: Axis
    values: tuple[int, ...]
    plans: tuple[Plan, ...]


def shape_at(shape: Architecture, axis: Axis, value: int) -> Architecture:
    """The shape with another width (heads stay as wide), head width (as many heads), or depth."""
    if axis == "width":
        if value % shape.d_head:
            raise ValueError(f"width {value} is not a multiple of the head width {shape.d_head}; choose others")
        return replace(shape, d_model=value, n_heads=value // shape.d_head)
    if axis == "head":
        return replace(shape, d_model=value * shape.n_heads)
    return replace(shape, n_layers=value)


def sweep(template: Plan, table: Table, axis: Axis, values: Sequence[int]) -> Sweep:
    """The template's plan at each value, its parametrization made anew by the table."""
    if len(set(values)) < 3:
        raise ValueError(f"{axis} {', '.join(map(str, values)) or 'of nothing'}: a slope needs 3 or more values")
    shapes = [shape_at(template.architecture, axis, value) for value in sorted(set(values))]
    plans = (replace(template, architecture=shape, parametrization=table(shape)) for shape in shapes)
    return Sweep(axis, tuple(sorted(set(values))), tuple(plans))


def moments(steps: int) -> list[int]:
    """The steps that are measured in a run of so many."""
    return sorted({*(step for step in MOMENTS if step < steps), steps})


def sizes(plan: Plan, batches: StepBatches, seed: int) -> Iterator[tuple[str, int, float]]:
    """(quantity, step, mean |x|) of one run; its probe is the batch after the last, which it never trains on."""
    probe = batches[plan.steps].ids
    model = initialize(GPT(plan.architecture, plan.parametrization), torch.Generator().manual_seed(seed))
    adamw, execution, world = optimizer(model, plan), Execution(micro_batch_size=plan.batch_size), World()
    start = activations(model, probe)
    yield from ((quantity, 0, x.abs().mean().item()) for quantity, x in start.items())
    measured = moments(plan.steps)
    for step in range(1, plan.steps + 1):
        gradients(model, batches[step - 1], execution, world)
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan.grad_clip)
        set_learning_rate(adamw, learning_rate(plan, step))
        adamw.step()
        adamw.let_go()
        if step in measured:
            for quantity, x in activations(model, probe).items():
                yield quantity, step, (x - start[quantity]).abs().mean().item()


def measure(made: Sweep, batches_of: Callable[[Plan, int], StepBatches], seeds: Sequence[int]) -> Iterator[list[Size]]:
    """The sizes of one run after the other; a seed has weights and batches of its own, the same at all values."""
    for seed in seeds:
        for x, plan in zip(made.values, made.plans, strict=True):
            rows = sizes(plan, batches_of(plan, seed), seed)
            yield [Size(quantity, step, x, seed, mean) for quantity, step, mean in rows]
