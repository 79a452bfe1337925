"""What this machine can do, measured by real training steps: dtype, micro-batch and tokens a second."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from cerebras_gpt import config
from cerebras_gpt.data.batches import Batch
from cerebras_gpt.distributed import World
from cerebras_gpt.files import read_json, replace_text
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.plan.memory import FLOAT32, largest_micro_batch
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.plan.preflight import micro_batch
from cerebras_gpt.process import memory_at_hand
from cerebras_gpt.train.execution import DTYPES, Execution, gradients
from cerebras_gpt.train.optim import optimizer

WARM_STEPS = 2


FILE = "calibration.json"


@dataclass(frozen=True)
class Calibration:
    """How fast a plan trains here, and with which execution."""

    execution: Execution
    tokens_per_second: float
    peak_flops: float
    """FLOP/s of a large matrix product in that dtype: the 100 % against which training is shown."""
    predicted_seconds: float
    """How long the whole plan should take."""
    spread: float = 0.0
    """How much slower than the median the slow ones (the 90th percentile) of the measured steps were, relative."""

    @property
    def seconds_between(self) -> tuple[float, float]:
        """Low and high end of the time to expect: the spread of the steps, at least LEAST_SPREAD, either way."""
        share = 1 + max(self.spread, LEAST_SPREAD)
        return self.predicted_seconds / share, self.predicted_seconds * share


LEAST_SPREAD = 0.1
"""Of the time of a run around its estimate; see benchmarks/plan_estimates.py."""


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


def device() -> str:
    """Where to compute: a GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def memory() -> int:
    """Bytes that training could take here."""
    return int(torch.cuda.mem_get_info()[0]) if device() == "cuda" else memory_at_hand()


def candidates(plan: Plan) -> Sequence[Execution]:
    """The executions worth trying: both dtypes, whole batches or parts of about 8192 tokens, fewer if memory ends.

    Raises ValueError when not even one sequence fits, naming what would.
    """
    at_hand = memory()
    most = micro_batch(plan, at_hand)
    wanted = max(1, min(plan.batch_size, 8192 // plan.architecture.seq_len, most))
    wide = min(wanted, largest_micro_batch(plan.architecture, wanted, at_hand, FLOAT32))
    dtypes = {"bfloat16": wanted, "float32": wide}
    return [Execution(dtype, micro, device()) for dtype, micro in dtypes.items() if micro]


def measure_speed(plan: Plan, execution: Execution, stopwatch: Stopwatch) -> Speed:
    """The speed of whole training steps of the plan: forward, backward, clip, update, on random tokens."""
    generator = torch.Generator().manual_seed(0)
    shape = plan.architecture
    model = initialize(GPT(shape, plan.parametrization), generator).to(execution.device)
    ids = torch.randint(shape.vocab_size, (plan.batch_size, shape.seq_len + 1), generator=generator)
    batch = Batch(ids[:, :-1].to(execution.device), ids[:, 1:].to(execution.device))
    adamw = optimizer(model, plan)

    def step() -> float:
        loss = gradients(model, batch, execution, World())
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan.grad_clip)
        adamw.step()  # at learning rate 0: the work is the same, the weights stay sane
        adamw.zero_grad(set_to_none=True)
        return loss.item()

    spent = stopwatch.times(step)
    median = spent[len(spent) // 2]
    return Speed(plan.tokens_per_step / median, spent[int(0.9 * len(spent))] / median - 1)


def measure_peak(execution: Execution, seconds: float = 0.5, size: int = 2048) -> float:
    """FLOP/s of a large matrix product in the execution's dtype."""
    a, b = (torch.randn(size, size, device=execution.device).to(DTYPES[execution.dtype]) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * size**3 / Stopwatch(seconds).time(lambda: torch.mm(a, b, out=out)[0, 0].item())


def fastest(plan: Plan, stopwatch: Stopwatch) -> Calibration:
    """The best of the candidates, by measurement."""
    speed, execution = max(
        ((measure_speed(plan, execution, stopwatch), execution) for execution in candidates(plan)),
        key=lambda pair: pair[0].tokens_per_second,
    )
    seconds = plan.tokens / speed.tokens_per_second
    return Calibration(execution, speed.tokens_per_second, measure_peak(execution), seconds, speed.spread)


def calibrated(plan: Plan, run: Path, stopwatch: Stopwatch) -> Calibration:
    """The calibration that a run began with, so that it goes on to the same bits; measured and kept the first time."""
    file = run / FILE
    if file.exists():
        return config.from_mapping(Calibration, read_json(file))
    found = fastest(plan, stopwatch)
    keep(found, run)
    return found


def keep(calibration: Calibration, run: Path) -> None:
    """Writes the calibration into the run folder."""
    run.mkdir(parents=True, exist_ok=True)
    replace_text(run / FILE, json.dumps(config.to_mapping(calibration), indent=2) + "\n")
