"""How `plan` turns what a person has into a plan: a size, time, compute, tokens or money."""

import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cerebras_gpt.cli.app import prepare_process

if TYPE_CHECKING:
    from cerebras_gpt.plan.budget import Text
    from cerebras_gpt.plan.plan import Plan
    from cerebras_gpt.plan.sizes import Family
    from cerebras_gpt.plan.tuned import Recipe
    from cerebras_gpt.train.calibrate import Calibration
    from cerebras_gpt.train.pilot import Planned

PUBLISHED_FAMILIES: "dict[bool, tuple[Family, Family]]" = {False: ("sp", "sp-yaml"), True: ("mup", "mup-yaml")}
"""By whether muP was asked for: the family of the paper, and that of the released configurations."""


class Money(NamedTuple):
    """What a person pays, and for what."""

    cost: float
    price: float | None
    """Of one device for an hour."""
    device_flops: float | None
    """FLOP/s that a device reaches in training; measured here if not given."""


def one_budget(given: Mapping[str, object], beside: Mapping[str, tuple[tuple[str, ...], object]]) -> None:
    """Refuses anything but exactly one budget, and options that belong to another one."""
    found = [name for name, value in given.items() if value is not None]
    if len(found) != 1:
        both = f"; {' and '.join(found)} were given" if found else ""
        raise ValueError(
            f"give one budget: a size (111M to 13B), --minutes, --flops, --tokens or --cost with --price{both}"
        )
    for option, (belongs_to, value) in beside.items():
        if value and found[0] not in belongs_to:
            raise ValueError(f"{option} belongs to {' or '.join(belongs_to)}, not to {found[0]}; leave it out")


def text_of(data: Path | None) -> "Text":
    """What the planner must know of a pack; without one, text without end."""
    from cerebras_gpt.plan.optimal import ENDLESS

    if data is None:
        return ENDLESS
    from cerebras_gpt.data.shards import Shards
    from cerebras_gpt.plan.budget import Text

    train = Shards.open(data, "train", verify=False)
    return Text(train.vocab_size, train.n_tokens, train.n_bytes)


def of_size(size: str, family: "Family", data: Path | None) -> "Plan":
    """A published size; a pack brings its vocabulary, and how often it would be read."""
    from dataclasses import replace

    from cerebras_gpt.plan.optimal import check_epochs, text_reason
    from cerebras_gpt.plan.plan import published_plan

    text = text_of(data)
    made = published_plan(size, family, text.vocab_size)
    if data is None:
        return made
    check_epochs(made, text)
    return replace(made, reasons=(*made.reasons, text_reason(made, text)))


def of_compute(flops: float, formula: str, data: Path | None) -> "Plan":
    """The compute-optimal plan of so many FLOPs."""
    from cerebras_gpt.plan.optimal import compute, optimal_plan

    return optimal_plan(compute(flops, formula), text_of(data))


def of_tokens(tokens: float, data: Path | None) -> "Plan":
    """The plan for which so many tokens are compute-optimal."""
    from cerebras_gpt.plan.optimal import optimal_plan, reading

    return optimal_plan(reading(tokens), text_of(data))


def of_money(money: Money, formula: str, data: Path | None) -> "Plan":
    """The compute-optimal plan of what the money buys."""
    from dataclasses import replace

    from cerebras_gpt.plan.optimal import money as bought

    if money.price is None:
        raise ValueError("--cost needs --price, what one device costs for an hour")
    bought(money.cost, money.price, money.device_flops or 1.0)  # refuses nonsense before anything is measured
    speed, source = money.device_flops, "given"
    if speed is None:
        prepare_process()
        from cerebras_gpt.train.pilot import device_flops

        speed, source = device_flops(text_of(data), formula), "measured here by training steps"
    flops = bought(money.cost, money.price, speed)
    made = of_compute(flops, formula, data)
    hours = money.cost / money.price
    reason = (
        f"money: {money.cost:g} at {money.price:g} a device-hour are {hours:.3g} device-hours at {speed:.3g} FLOP/s "
        f"({source})"
    )
    return replace(made, reasons=(reason, *made.reasons))


def used(plan: "Plan", inference_tokens: float | None, data: Path | None) -> "Plan":
    """The plan that so much use makes cheaper in all; the plan itself if none is foreseen."""
    if inference_tokens is None:
        return plan
    from cerebras_gpt.plan.in_use import for_use

    return for_use(plan, inference_tokens, text_of(data))


def of_minutes(minutes: float, data: Path | None, recipe: "Recipe") -> "Planned":
    """The plan for so many minutes of this machine, which is measured."""
    if data is None:
        raise ValueError("--minutes needs --data, a folder made by `cerebras-gpt pack`: its size limits the plan")
    prepare_process()
    from cerebras_gpt.train.pilot import plan_here

    with tempfile.TemporaryDirectory() as folder:
        return plan_here(minutes, data, Path(folder) / "pilot", recipe)


def measured(plan: "Plan") -> "Calibration":
    """How fast the plan trains here."""
    prepare_process()
    from cerebras_gpt.train.calibrate import fastest
    from cerebras_gpt.train.pilot import CAREFUL

    return fastest(plan, CAREFUL)


def before_the_run(plan: "Plan", memory: float | None, calibration: "Calibration | None") -> list[tuple[str, str]]:
    """Memory, disk and time as rows; a plan is refused that does not fit into the memory that was named."""
    from cerebras_gpt.plan.preflight import Room, micro_batch, preflight
    from cerebras_gpt.process import memory_at_hand
    from cerebras_gpt.record import duration

    if memory is not None:
        if not 0 < memory < math.inf:
            raise ValueError(f"--memory {memory:g} is no memory; give gigabytes such as 16")
        micro_batch(plan, int(memory * 1e9))
    at_hand = memory_at_hand() if memory is None else int(memory * 1e9)
    rows = preflight(plan, Room(at_hand, shutil.disk_usage(Path.cwd()).free))
    if calibration is None:
        return rows
    low, high = calibration.seconds_between
    speed = f"{calibration.tokens_per_second:,.0f} tokens/s measured here in {calibration.execution.dtype}"
    return [*rows, ("time", f"{duration(low)} to {duration(high)} ({speed})")]


def recipe_of(tuned: Path | None) -> "Recipe":
    """What gives a plan the values of a search; the published ones stay if there was none."""
    from cerebras_gpt.plan.tuned import Tuned, as_published, tuned_plan

    return as_published if tuned is None else partial(tuned_plan, tuned=Tuned.load(tuned))


def with_batch(plan: "Plan", noise_from: Path | None) -> "Plan":
    """The plan with the batch that the gradient noise of an earlier run asks for; the plan itself without one."""
    if noise_from is None:
        return plan
    from cerebras_gpt.plan.noise import batch_from_noise, noise_of
    from cerebras_gpt.plan.plan import Plan

    noise = noise_of(noise_from)
    return batch_from_noise(plan, noise, Plan.load(noise_from).tokens)


def text_of_plan(plan: "Plan", before: Sequence[tuple[str, str]]) -> str:
    """The plan, what is known before the run, and the table of roles as aligned lines."""
    from cerebras_gpt.plan.plan import describe, role_table

    lines = [f"{label:<22} {value}" for label, value in (*describe(plan), *before)]
    lines += ["", f"{'role':<13} {'init std':>10} {'lr scale':>9} {'peak lr':>10} {'decay':>7} {'eps':>8}"]
    lines += [
        f"{row.role:<13} {row.init_std:>10.5g} {row.lr_scale:>9.4g} {row.peak_lr:>10.4g}"
        f" {row.weight_decay:>7.3g} {row.adam_eps:>8.3g}"
        for row in role_table(plan)
    ]
    return "\n".join([*lines, "", *(f"- {reason}" for reason in plan.reasons)]) + "\n"


LONGEST_MINUTES = 60 * 24 * 366


def check_minutes(minutes: float | None) -> float | None:
    """The minutes that an option gives, refused unless a run can take so long."""
    if minutes is None or 0 < minutes <= LONGEST_MINUTES:
        return minutes
    if LONGEST_MINUTES < minutes < math.inf:
        raise ValueError(
            f"--minutes {minutes:g} is more than a year; the nearest possible plan: --minutes {LONGEST_MINUTES}"
        )
    raise ValueError(f"--minutes {minutes:g} is not a time to train; give a positive number such as 5")
