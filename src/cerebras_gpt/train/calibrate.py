"""What this machine can do, measured by real training steps: dtype, micro-batch and tokens a second."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cerebras_gpt import config
from cerebras_gpt.data.batches import Batch
from cerebras_gpt.distributed import World
from cerebras_gpt.files import read_json, replace_text
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.plan.plan import Plan
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


@dataclass(frozen=True)
class Stopwatch:
    """Runs something for a while and gives the median seconds of one call."""

    seconds: float
    fewest: int = 3

    def time(self, call: Callable[[], object]) -> float:
        """The median of at least `fewest` calls after the warm ones."""
        for _ in range(WARM_STEPS):
            call()
        spent: list[float] = []
        while sum(spent) < self.seconds or len(spent) < self.fewest:
            started = time.perf_counter()
            call()
            spent.append(time.perf_counter() - started)
        return sorted(spent)[len(spent) // 2]


def device() -> str:
    """Where to compute: a GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def candidates(plan: Plan) -> Sequence[Execution]:
    """The executions worth trying: both dtypes, and whole batches or halves of about 8192 tokens."""
    micro = max(1, min(plan.batch_size, 8192 // plan.architecture.seq_len))
    return [Execution(dtype, micro, device()) for dtype in ("bfloat16", "float32")]


def measure_speed(plan: Plan, execution: Execution, stopwatch: Stopwatch) -> float:
    """Tokens a second of whole training steps of the plan: forward, backward, clip, update, on random tokens."""
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

    return plan.tokens_per_step / stopwatch.time(step)


def measure_peak(execution: Execution, seconds: float = 0.5, size: int = 2048) -> float:
    """FLOP/s of a large matrix product in the execution's dtype."""
    a, b = (torch.randn(size, size, device=execution.device).to(DTYPES[execution.dtype]) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * size**3 / Stopwatch(seconds).time(lambda: torch.mm(a, b, out=out)[0, 0].item())


def fastest(plan: Plan, stopwatch: Stopwatch) -> Calibration:
    """The best of the candidates, by measurement."""
    speed, execution = max(
        ((measure_speed(plan, execution, stopwatch), execution) for execution in candidates(plan)),
        key=lambda pair: pair[0],
    )
    return Calibration(execution, speed, measure_peak(execution), plan.tokens / speed)


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
