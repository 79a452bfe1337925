"""The plan of a tuning run: the pretraining plan's table with fewer, smaller steps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from cerebras_gpt.data.batches import Batch
from cerebras_gpt.data.example_batches import ExampleBatches, Sample
from cerebras_gpt.distributed import World
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.train.execution import Execution, gradients
from cerebras_gpt.train.speed import Stopwatch

RATE_SHARE = 0.05
"""Of the peak learning rate of pretraining; the table's scales of each role stay. Pretraining ends at a tenth of its
peak: more than that spoils what is there before it brings anything (docs/adapt.md)."""
PUBLISHED_RATE = 6e-4
"""Peak of pretraining where it is not known: that of the published 111M (Dey et al. 2023, table 9)."""
LOW_RANK_RATE = 30.0
"""Times that rate, if only low-rank updates are learned: they start at nothing (docs/adapt.md)."""
WARMUP_SHARE = 0.05
STEPS_BETWEEN = 5
"""Fewest steps from one evaluation to the next."""


@dataclass(frozen=True)
class Tuning:
    """What a person may choose about tuning."""

    rank: int = 0
    """Of the low-rank updates; 0 tunes every weight."""
    epochs: float = 5.0
    """Times that each example is seen, if early stopping does not end it before."""
    batch_size: int = 16
    """Examples in one optimizer step."""
    patience: int = 5
    """Evaluations without a better held-out loss after which training ends."""
    evaluations: int = 20
    """How many times the held-out loss is measured."""
    minutes: float = 0.0
    """Most minutes of updates on this machine, which is measured: fewer steps, not a run cut short; 0 sets no limit."""
    rate: float = 0.0
    """Peak learning rate at lr scale 1; 0 derives it from pretraining."""
    seed: int = 0

    def __post_init__(self) -> None:
        rules = {
            "rank": (self.rank >= 0, "0 (all weights) or a positive whole number"),
            "epochs": (0 < self.epochs < 1e6, "a positive number"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "patience": (self.patience >= 1, "at least 1"),
            "evaluations": (self.evaluations >= 1, "at least 1"),
            "minutes": (0 <= self.minutes < 1e6, "0 (no limit) or a positive number"),
            "rate": (0 <= self.rate < 1e3, "0 (derived) or a positive number"),
        }
        for name, (is_allowed, allowed) in rules.items():
            if not is_allowed:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {allowed}")


def pretraining_rate(folder: Path) -> float:
    """The peak learning rate that a checkpoint's weights were trained with, or the published one."""
    return Plan.load(folder).peak_lr if (folder / "plan.json").exists() else PUBLISHED_RATE


def tuning_plan(model: GPT, name: str, folder: Path, train: Sequence[Sample], tuning: Tuning) -> Plan:
    """The plan for tuning a checkpoint on these samples."""
    batch_size = min(tuning.batch_size, len(train))
    steps = max(2, round(tuning.epochs * len(train) / batch_size))
    looks = max(1, min(tuning.evaluations, steps // STEPS_BETWEEN))
    share = RATE_SHARE * (LOW_RANK_RATE if tuning.rank else 1.0)
    rate = tuning.rate or share * pretraining_rate(folder)
    return Plan(
        name=name,
        architecture=model.architecture,
        parametrization=replace(model.parametrization),
        batch_size=batch_size,
        steps=steps,
        warmup_steps=max(1, int(WARMUP_SHARE * steps)),
        peak_lr=rate,
        final_lr_fraction=0.0,
        weight_decay=0.1,
        seed=tuning.seed,
        evaluations=looks,
        saves=looks,
        reasons=(
            f"learning rate: {share:g} of pretraining's" if not tuning.rate else "learning rate: set by hand",
            f"steps: {tuning.epochs:g} times each of {len(train):,} examples, ended early once held-out loss rises",
        ),
    )


def within(plan: Plan, minutes: float, seconds_per_step: float) -> Plan:
    """The plan with no more steps than the minutes allow."""
    steps = max(2, min(plan.steps, int(60 * minutes / seconds_per_step)))
    if steps == plan.steps:
        return plan
    return replace(
        plan,
        steps=steps,
        warmup_steps=max(1, int(WARMUP_SHARE * steps)),
        evaluations=max(1, min(plan.evaluations, steps // STEPS_BETWEEN)),
        saves=max(1, min(plan.saves, steps // STEPS_BETWEEN)),
        reasons=(*plan.reasons, f"only {steps:,} steps: {minutes:g} minutes at {seconds_per_step:.3g} s a step here"),
    )


def seconds_per_step(model: GPT, plan: Plan, samples: Sequence[Sample], execution: Execution) -> float:
    """Time of the gradients of a batch, the middle one of several; the model stays as it is."""
    batches, steps = ExampleBatches(samples, plan.batch_size, plan.seed, filler=0), count()

    def gradient() -> None:
        batch = batches.rows(next(steps), range(plan.batch_size))
        gradients(model, Batch(*(tensor.to(execution.device) for tensor in batch)), execution, World())
        model.zero_grad(set_to_none=True)

    return Stopwatch(seconds=2.0, fewest=5).time(gradient)
