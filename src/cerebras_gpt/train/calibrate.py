"""What this machine can do, measured by real training steps: dtype, micro-batch and tokens a second."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
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
from cerebras_gpt.process import cache_folder, give_back_memory, memory_at_hand, n_cores, processor
from cerebras_gpt.train.execution import DTYPES, Execution, gradients
from cerebras_gpt.train.optim import optimizer

WARM_STEPS = 2

PARTS = (8192, 2048)
"""Tokens at a time: the products like many, the caches few."""

TURNS = 4
"""Times at most that every execution is tried before the choice."""

FAR = 1.4
"""Times the speed at which a choice was made, up or down, from which on it is made again."""

CLEARLY = 1.5
"""Times the rate of float32's products from which on bfloat16 is taken without trying whole steps."""

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
    """The executions worth trying: both dtypes, parts of about 8192 tokens or 2048, fewer if memory ends.

    Where not one sequence fits otherwise, activations are computed again. Raises ValueError when that does not help
    either, naming what would.
    """
    at_hand, shape, here = memory(), plan.architecture, device()
    most = micro_batch(plan, at_hand)
    wide, narrow = (max(1, min(plan.batch_size, tokens // shape.seq_len, most)) for tokens in PARTS)
    if not largest_micro_batch(shape, plan.batch_size, at_hand):
        return [Execution("bfloat16", wide, here, recompute=True)]
    in_full = min(wide, largest_micro_batch(shape, wide, at_hand, FLOAT32))
    found = [Execution("bfloat16", rows, here) for rows in dict.fromkeys((wide, narrow))]
    return [*found, Execution("float32", in_full, here)] if in_full else found


class TrainingStep:
    """A step of a plan on random tokens, its two parts apart: a large batch need not be run to be timed."""

    def __init__(self, plan: Plan, execution: Execution) -> None:
        generator, shape = torch.Generator().manual_seed(0), plan.architecture
        self.plan, self.execution = plan, execution
        self.model = initialize(GPT(shape, plan.parametrization), generator).to(execution.device)
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


def measure_peak(execution: Execution, seconds: float = 0.25, size: int = 2048) -> float:
    """FLOP/s of a large matrix product in the execution's dtype."""
    spent = product_times(execution, seconds, size)
    return 2 * size**3 / spent[len(spent) // 2]


def fast_dtype() -> str:
    """bfloat16 where its products take clearly less time than float32's, as on processors and GPUs made for it.

    The shortest of many is compared: what else the machine does at the moment must not decide.
    """
    least = {dtype: product_times(Execution(dtype, device=device()), 0.1, 512)[0] for dtype in DTYPES}
    return "bfloat16" if CLEARLY * least["bfloat16"] < least["float32"] else "float32"


class Trial(NamedTuple):
    """What an execution reached."""

    execution: Execution
    speed: Speed


class Ranking(NamedTuple):
    """All executions that were tried."""

    trials: list[Trial]
    """The fastest first."""
    is_confirmed: bool
    """Whether the first was the fastest in two turns."""


def ranking(plan: Plan, stopwatch: Stopwatch) -> Ranking:
    """Every candidate with the mean speed of its turns, that with the best turn first.

    What else a machine does can only slow a turn, so the best one counts; and all take turns until who is first was
    the fastest of a turn twice, or the turns end.
    """
    found, turns, is_confirmed = candidates(plan), list[list[Speed]](), False
    while not is_confirmed and len(turns) < TURNS:
        turns.append([measure_speed(plan, execution, stopwatch) for execution in found])
        best = max(range(len(found)), key=lambda i: max(turn[i] for turn in turns))
        is_confirmed = len(found) == 1 or sum(turn[best] == max(turn) for turn in turns) > 1
    pairs = sorted(zip(found, zip(*turns, strict=True), strict=True), key=lambda pair: max(pair[1]), reverse=True)
    return Ranking([Trial(execution, mean(speeds)) for execution, speeds in pairs], is_confirmed)


def mean(speeds: Sequence[Speed]) -> Speed:
    """What turns of equal length come to."""
    return Speed(*(sum(values) / len(speeds) for values in zip(*speeds, strict=True)))


def calibration(plan: Plan, trial: Trial) -> Calibration:
    """What a trial tells of the whole plan."""
    execution, speed = trial
    seconds = plan.tokens / speed.tokens_per_second
    peak = measure_peak(execution)
    give_back_memory()  # of all that was tried: the run holds what its own execution needs
    return Calibration(execution, speed.tokens_per_second, peak, seconds, speed.spread)


def fastest(plan: Plan, stopwatch: Stopwatch) -> Calibration:
    """The best of the candidates, by measurement."""
    return calibration(plan, ranking(plan, stopwatch).trials[0])


def calibrated(plan: Plan, run: Path, stopwatch: Stopwatch) -> Calibration:
    """The calibration that a run began with, so that it goes on to the same bits; found and kept the first time."""
    file = run / FILE
    if file.exists():
        return config.from_mapping(Calibration, read_json(file))
    found = remembered(plan, stopwatch, cache_folder())
    keep(found, run)
    return found


@dataclass(frozen=True)
class Choice:
    """What is remembered of a machine and a shape."""

    execution: Execution
    tokens_per_second: float
    """With it when it was chosen."""

    def holds(self, speed: Speed) -> bool:
        """Whether it is about as fast now: if not, something else ran beside it, then or now."""
        return 1 / FAR < speed.tokens_per_second / self.tokens_per_second < FAR


def remembered(plan: Plan, stopwatch: Stopwatch, folder: Path) -> Calibration:
    """The choice that was made on this machine for this shape, its speed measured anew; a confirmed one is kept there.

    A choice that is no candidate any more, because there is less memory, is made again, as is one whose speed now is
    far from what it was.
    """
    file = folder / f"{choice_key(plan)}.json"
    with suppress(OSError, ValueError):
        chosen = config.from_mapping(Choice, read_json(file))
        if chosen.execution in candidates(plan):
            short = Stopwatch(stopwatch.seconds / 2, stopwatch.fewest)  # only the speed is to be known
            speed = measure_speed(plan, chosen.execution, short)
            if chosen.holds(speed):
                return calibration(plan, Trial(chosen.execution, speed))
    found = ranking(plan, stopwatch)
    first = found.trials[0]
    if found.is_confirmed:
        with suppress(OSError):  # a home that cannot be written to costs the next run a measurement
            folder.mkdir(parents=True, exist_ok=True)
            choice = Choice(first.execution, first.speed.tokens_per_second)
            replace_text(file, json.dumps(config.to_mapping(choice)) + "\n")
    return calibration(plan, first)


def choice_key(plan: Plan) -> str:
    """Names the kind of machine, torch, and the shape of a step: where any of them differs, so may the best choice."""
    gpu = torch.cuda.get_device_name() if device() == "cuda" else ""
    here = [processor(), n_cores(), torch.get_num_threads(), gpu, torch.__version__]
    shape = config.to_mapping(plan.architecture)
    return hashlib.sha256(json.dumps([here, shape, plan.batch_size], sort_keys=True).encode()).hexdigest()[:16]


def keep(calibration: Calibration, run: Path) -> None:
    """Writes the calibration into the run folder."""
    run.mkdir(parents=True, exist_ok=True)
    replace_text(run / FILE, json.dumps(config.to_mapping(calibration), indent=2) + "\n")
