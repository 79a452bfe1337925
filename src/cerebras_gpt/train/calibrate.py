"""What this machine can do, measured by real training steps: dtype, micro-batch and tokens a second."""

import hashlib
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from cerebras_gpt import config
from cerebras_gpt.files import read_json, replace_text
from cerebras_gpt.plan.flops import matmul_flops_per_token
from cerebras_gpt.plan.memory import FLOAT32, largest_micro_batch
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.plan.preflight import micro_batch
from cerebras_gpt.process import cache_folder, give_back_memory, n_cores, processor
from cerebras_gpt.train.device import device, give_back, memory, name
from cerebras_gpt.train.execution import Execution
from cerebras_gpt.train.speed import Speed, Stopwatch, fast_dtype, measure_peak, measure_speed

log = logging.getLogger("cerebras_gpt")

PARTS = {"cpu": (8192, 2048), "cuda": (65536, 16384)}
"""Tokens at a time: the products like many, the caches few."""

SUMS_HELD = 2
"""Sums of gradients that a step of four parts holds beside the one it adds to: a trial of one micro-batch has none."""

WORTH_COMPILING = 1e16
"""FLOPs of a run from which on torch's compiler is tried on a GPU: half a minute of one."""

TURNS = 4
"""Times at most that every execution is tried before the choice."""

FAR = 1.4
"""Times the speed at which a choice was made, up or down, from which on it is made again."""

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


def candidates(plan: Plan) -> Sequence[Execution]:
    """The executions worth trying: both dtypes, many tokens at a time or few, fewer if memory ends.

    Where not one sequence fits otherwise, activations are computed again. Raises ValueError when that does not help
    either, naming what would.
    """
    shape, here = plan.architecture, device()
    at_hand = memory() - (SUMS_HELD * FLOAT32 * shape.n_parameters if here == "cuda" else 0)
    most = micro_batch(plan, at_hand)
    wide, narrow = (max(1, min(plan.batch_size, tokens // shape.seq_len, most)) for tokens in PARTS[here])
    if not largest_micro_batch(shape, plan.batch_size, at_hand):
        return [Execution("bfloat16", wide, here, recompute=True)]
    found = [Execution("bfloat16", rows, here) for rows in dict.fromkeys((wide, narrow))]
    if here == "cuda" and fast_dtype() == "bfloat16":  # a GPU made for it has no use for float32
        is_long = plan.tokens * matmul_flops_per_token(shape) >= WORTH_COMPILING
        return [*(replace(one, compiled=True) for one in found if is_long), *found]
    in_full = min(wide, largest_micro_batch(shape, wide, at_hand, FLOAT32))
    return [*found, Execution("float32", in_full, here)] if in_full else found


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
    found, first = able(plan, stopwatch)
    turns, is_confirmed = [first], len(found) == 1
    while not is_confirmed and len(turns) < TURNS:
        turns.append([measure_speed(plan, execution, stopwatch) for execution in found])
        best = max(range(len(found)), key=lambda i: max(turn[i] for turn in turns))
        is_confirmed = sum(turn[best] == max(turn) for turn in turns) > 1
    pairs = sorted(zip(found, zip(*turns, strict=True), strict=True), key=lambda pair: max(pair[1]), reverse=True)
    return Ranking([Trial(execution, mean(speeds)) for execution, speeds in pairs], is_confirmed)


def able(plan: Plan, stopwatch: Stopwatch) -> tuple[list[Execution], list[Speed]]:
    """The candidates that this machine can do, in their order, with their speeds in the first turn.

    Only a GPU leaves one out: its memory is cut up otherwise than planned, or torch's compiler lacks a C compiler.
    """
    tried = candidates(plan)
    found = {execution: attempt(plan, execution, stopwatch) for execution in tried}
    done = {execution: speed for execution, speed in found.items() if isinstance(speed, Speed)}
    if not done:
        raise ValueError(f"this machine cannot train {plan.name} ({found[tried[-1]]}); plan a smaller size")
    return list(done), list(done.values())


def attempt(plan: Plan, execution: Execution, stopwatch: Stopwatch) -> Speed | str:
    """The speed, or why a GPU has none."""
    if execution.device == "cpu":
        return measure_speed(plan, execution, stopwatch)
    try:
        return measure_speed(plan, execution, stopwatch)
    except RuntimeError as error:  # torch.OutOfMemoryError and what its compiler raises are such
        why = str(error).partition("\n")[0]
    give_back()  # only now, after the error, is what it held free
    log.info("training is not tried with %s: %s", execution, why)
    return why


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
    here = [processor(), n_cores(), torch.get_num_threads(), name(), torch.__version__]
    shape = config.to_mapping(plan.architecture)
    return hashlib.sha256(json.dumps([here, shape, plan.batch_size], sort_keys=True).encode()).hexdigest()[:16]


def keep(calibration: Calibration, run: Path) -> None:
    """Writes the calibration into the run folder."""
    run.mkdir(parents=True, exist_ok=True)
    replace_text(run / FILE, json.dumps(config.to_mapping(calibration), indent=2) + "\n")
