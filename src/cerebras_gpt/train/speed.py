"""How fast this machine does training steps and matrix products, by the clock."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from cerebras_gpt.data.batches import Batch
from cerebras_gpt.distributed import World
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.train.device import device
from cerebras_gpt.train.execution import DTYPES, Execution, gradients
from cerebras_gpt.train.optim import optimizer

WARM_STEPS = 2

PRODUCTS = {"cpu": (512, 2048), "cuda": (4096, 8192)}
"""Sides of the matrices by which dtypes are compared, and the peak is measured: large enough for the device."""

CLEARLY = 1.5
"""Times the rate of float32's products from which on bfloat16 is taken without trying whole steps."""


class Speed(NamedTuple):
    """What a stopwatch saw of training steps."""

    tokens_per_second: float
    """At the median step."""
    spread: float
    """See Calibration."""


@dataclass(frozen=True)
class Stopwatch:
    """Runs something for a while and gives the seconds of one call."""

    seconds: float
    fewest: int = 3

    def times(self, call: Callable[[], object]) -> list[float]:
        """Seconds of at least `fewest` calls after the warm ones, in ascending order."""
        for _ in range(WARM_STEPS):
            call()
        spent: list[float] = []
        while sum(spent) < self.seconds or len(spent) < self.fewest:
            started = time.perf_counter()
            call()
            spent.append(time.perf_counter() - started)
        return sorted(spent)

    def time(self, call: Callable[[], object]) -> float:
        """Their median."""
        spent = self.times(call)
        return spent[len(spent) // 2]


class TrainingStep:
    """A step of a plan on random tokens, its two parts apart: a large batch need not be run to be timed."""

    def __init__(self, plan: Plan, execution: Execution) -> None:
        generator, shape = torch.Generator().manual_seed(0), plan.architecture
        self.plan, self.execution = plan, execution
        with torch.device(execution.device):  # where drawing a billion numbers takes the least time
            model, here = GPT(shape, plan.parametrization), torch.Generator(execution.device).manual_seed(0)
        self.model = execution.placed(initialize(model, here))
        rows = min(execution.micro_batch_size, plan.batch_size)
        ids = torch.randint(shape.vocab_size, (rows, shape.seq_len + 1), generator=generator)
        self.batch = Batch(ids[:, :-1].to(execution.device), ids[:, 1:].to(execution.device))
        self.adamw = optimizer(self.model, plan)

    @property
    def n_micro_batches(self) -> float:
        """How many of them are a batch."""
        return self.plan.batch_size / len(self.batch.ids)

    def micro_batch(self) -> float:
        """Forward and backward of one."""
        return gradients(self.model, self.batch, self.execution, World()).item()

    def update(self) -> float:
        """Clip and update, at learning rate 0: the work is the same, the weights stay sane."""
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.grad_clip)
        self.adamw.step()
        return norm.item()


def measure_speed(plan: Plan, execution: Execution, stopwatch: Stopwatch) -> Speed:
    """The speed of whole training steps of the plan: forward, backward, clip, update, on random tokens."""
    step = TrainingStep(plan, execution)
    spent = stopwatch.times(step.micro_batch)
    median = spent[len(spent) // 2]
    seconds = step.n_micro_batches * median + Stopwatch(stopwatch.seconds / 4, stopwatch.fewest).time(step.update)
    return Speed(plan.tokens_per_step / seconds, spent[int(0.9 * len(spent))] / median - 1)


def product_times(execution: Execution, seconds: float, size: int) -> list[float]:
    """Seconds of square matrix products in the execution's dtype, in ascending order."""
    a, b = (torch.randn(size, size, device=execution.device).to(DTYPES[execution.dtype]) for _ in range(2))
    out = torch.empty_like(a)
    return Stopwatch(seconds).times(lambda: torch.mm(a, b, out=out)[0, 0].item())


def measure_peak(execution: Execution, seconds: float = 0.25, size: int = 0) -> float:
    """FLOP/s of a large matrix product in the execution's dtype."""
    size = size or PRODUCTS[execution.device][1]
    spent = product_times(execution, seconds, size)
    return 2 * size**3 / spent[len(spent) // 2]


def fast_dtype() -> str:
    """bfloat16 where its products take clearly less time than float32's, as on processors and GPUs made for it.

    The shortest of many is compared: what else the machine does at the moment must not decide.
    """
    here = device()
    least = {dtype: product_times(Execution(dtype, device=here), 0.1, PRODUCTS[here][0])[0] for dtype in DTYPES}
    return "bfloat16" if CLEARLY * least["bfloat16"] < least["float32"] else "float32"
