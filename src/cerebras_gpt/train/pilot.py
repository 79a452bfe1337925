"""A plan for this machine and this text: speed measured by training, loss predicted from a short pilot run."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from cerebras_gpt.data.shards import Shards
from cerebras_gpt.distributed import World
from cerebras_gpt.plan.budget import START_WIDTH, Text, pilot_of, predicted, size_for, small_plan, steps_in
from cerebras_gpt.plan.flops import training_flops
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.plan.tuned import Recipe, as_published
from cerebras_gpt.record import rows_of
from cerebras_gpt.train.calibrate import Calibration, fastest, keep
from cerebras_gpt.train.pretrain import pretrain
from cerebras_gpt.train.speed import Stopwatch

QUICK, CAREFUL = Stopwatch(0.4), Stopwatch(1.5)


class Planned(NamedTuple):
    """A plan, and the measurement that it rests on."""

    plan: Plan
    calibration: Calibration


def plan_here(minutes: float, data: Path, folder: Path, recipe: Recipe = as_published) -> Planned:
    """The plan for so many minutes of training on this machine on the text of a pack, by a recipe of its values.

    Measures a few sizes for a second each, picks one, and trains it for a twentieth of the time in the given folder.
    """

    def plan_of(steps: int) -> Plan:
        return recipe(small_plan(width, text, steps))

    train = Shards.open(data, "train", verify=False)
    text = Text(train.vocab_size, train.n_tokens, train.n_bytes)
    width = size_for(minutes, text, lambda candidate: fastest(candidate, QUICK).tokens_per_second)
    calibration = fastest(plan_of(2), CAREFUL)
    plan = plan_of(steps_in(minutes, plan_of(2), calibration.tokens_per_second))
    pilot = pilot_of(plan)
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted pilot left may be of another plan
    keep(calibration, folder)
    trainer = pretrain(pilot, data, folder, World())
    speed = trainer.tokens / trainer.seconds
    plan = plan_of(steps_in(minutes, plan, speed))
    calibration = replace(calibration, tokens_per_second=speed, predicted_seconds=plan.tokens / speed)
    return Planned(predicted(plan, pilot, held_out_bits(folder), text, minutes), calibration)


def device_flops(text: Text, formula: str) -> float:
    """FLOP/s by a named formula that training reaches here, measured on the starting width of runs of minutes."""
    plan = small_plan(START_WIDTH, text, 2)
    return fastest(plan, CAREFUL).tokens_per_second * training_flops(plan.architecture, 1, formula)


def held_out_bits(run: Path) -> float:
    """The newest held-out bits per byte of a run."""
    rows = rows_of(run / "metrics.jsonl", "held_out")
    return float(str(rows[-1]["bits_per_byte"]))
