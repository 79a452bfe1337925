"""Does a parametrization keep its promise? Slopes over width, head width and depth, direct laws, and rate transfer."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from cerebras_gpt import config
from cerebras_gpt.data.batches import PackedBatches
from cerebras_gpt.data.markov import MarkovBatches
from cerebras_gpt.data.shards import Shards
from cerebras_gpt.errors import DOES_NOT_HOLD
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.model.parametrization import Parametrization
from cerebras_gpt.plan.families import BASES, PARAMETRIZATIONS, Base
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.record import Steps
from cerebras_gpt.train.coordinates import Axis, Size, StepBatches, Sweep, measure, shape_at, sweep
from cerebras_gpt.train.direct import Promise, broken_forward, broken_groups, broken_start
from cerebras_gpt.train.optim import optimizer, set_learning_rate
from cerebras_gpt.train.slopes import Slope, judged, slopes
from cerebras_gpt.train.transfer import Transfer, rates_around, transfer
from cerebras_gpt.train.trial import Workers

VOCAB_SIZE, SEQ_LEN, BATCH_SIZE = 256, 32, 8
"""Of the runs of a check, without a pack: the laws are about width and depth, and small is quick."""

D_HEAD, N_LAYERS, N_HEADS = 16, 2, 8
"""Head width and depth if no run gives them, and the heads of the sweep over their width."""

HEAD_WIDTHS = (8, 16, 32, 64)
DEPTHS = (2, 4, 8, 16, 32)

AXES: dict[str, tuple[Axis, ...]] = {
    "sp": ("width", "head"),
    "mup": ("width", "head"),
    "completep": ("width", "head", "depth"),
}
"""What is looked at if not asked otherwise: all that muP and CompleteP promise; SP promises nothing."""


class BrokenPromiseError(ValueError):
    """A parametrization does not do what it promises."""

    exit_code = DOES_NOT_HOLD


@dataclass(frozen=True)
class Settings:
    """How a check is made."""

    widths: tuple[int, ...] = ()
    """Widths to compare; none chooses 1, 2, 4 and 8 times 64, or times the head width if that is more."""
    head_widths: tuple[int, ...] = HEAD_WIDTHS
    depths: tuple[int, ...] = DEPTHS
    steps: int = 10
    seeds: int = 5
    first_seed: int = 0
    lr: float = 0.01
    """Constant, and large on purpose, so that what grows grows in a few steps."""
    data: Path | None = None
    """A pack to read; none reads a made-up language."""

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("seeds", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; give {least} or more")


@dataclass(frozen=True)
class Subject:
    """What is checked: a parametrization by name with its tuned constants, and the recipe around it."""

    parametrization: str
    base: Base
    template: Plan
    notes: tuple[str, ...] = ()
    """What differs from the run that was named, in words."""

    def based_on(self, smallest: Architecture) -> Base:
        """The base that makes the smallest shape of a sweep the tuned one; the laws do not depend on it."""
        return replace(self.base, d_model=smallest.d_model, n_layers=smallest.n_layers)

    def table(self, smallest: Architecture) -> Callable[[Architecture], Parametrization]:
        """From a shape to its parametrization."""
        base = self.based_on(smallest)
        return lambda architecture: PARAMETRIZATIONS[self.parametrization](architecture, base)


class Finding(NamedTuple):
    """All that a check found of one subject."""

    subject: Subject
    sizes: dict[Axis, list[Size]]
    slopes: dict[Axis, list[Slope]]
    direct: dict[str, list[str]]
    """Direct law -> what breaks it, a line each."""
    transfer: Transfer | None
    seconds: float

    @property
    def broken(self) -> list[str]:
        """Everything that does not hold, a sentence each."""
        of_slopes = [str(slope) for found in self.slopes.values() for slope in judged(found) if not slope.holds]
        of_tables = [f"{law}: {line}" for law, lines in self.direct.items() for line in lines]
        of_transfer = [str(self.transfer)] if self.transfer is not None and not self.transfer.holds else []
        return of_tables + of_slopes + of_transfer


def named_subject(parametrization: str, settings: Settings) -> Subject:
    """A parametrization by its name, with the constants published for it."""
    if parametrization not in PARAMETRIZATIONS:
        raise ValueError(config.unknown("parametrization", parametrization, PARAMETRIZATIONS))
    shape = Architecture(D_HEAD, N_LAYERS, 1, VOCAB_SIZE, SEQ_LEN)
    return _subject(parametrization, BASES[parametrization], shape, settings)


def subject_of(plan: Plan, settings: Settings, parametrization: str | None = None) -> Subject:
    """The parametrization and the family of shapes of a plan; another parametrization's name may replace its own."""
    own, base = promise_of(plan)
    name, shape = parametrization or own, plan.architecture
    if name not in PARAMETRIZATIONS:
        raise ValueError(config.unknown("parametrization", name, PARAMETRIZATIONS))
    small = replace(shape, d_model=shape.d_head, n_heads=1, n_layers=N_LAYERS, vocab_size=VOCAB_SIZE, seq_len=SEQ_LEN)
    made = _subject(name, base if name == own else BASES[name], small, settings)
    note = f"of {plan.name}: heads of {shape.d_head}, {shape.activation}, constants and optimizer; smaller otherwise"
    template = replace(made.template, weight_decay=plan.weight_decay, betas=plan.betas, adam_eps=plan.adam_eps)
    return replace(made, template=template, notes=(note,))


def promise_of(plan: Plan) -> tuple[str, Base]:
    """Which parametrization a plan follows, and from which base; refuses a table that is none of them."""
    table, shape = plan.parametrization, plan.architecture
    base = Base(
        d_model=max(1, round(shape.d_model / table.width_multiplier)),
        n_layers=max(1, round(shape.n_layers / table.depth_multiplier)),
        init_std=table.base_init_std,
        embedding_scale=table.embedding_scale,
        output_alpha=table.output_alpha,
    )
    for name, make in PARAMETRIZATIONS.items():
        if make(shape, base) == table:
            return name, base
    raise ValueError(
        f"the table of {plan.name} is none of {', '.join(PARAMETRIZATIONS)}; check one of these with --parametrization"
    )


def _subject(name: str, base: Base, shape: Architecture, settings: Settings) -> Subject:
    """A subject that trains at a constant rate on the settings' tokens; the shape is one head wide."""
    if settings.data is not None:
        shape = replace(shape, vocab_size=Shards.open(settings.data, "train").vocab_size)
    template = Plan(
        name=f"check {name}",
        architecture=shape,
        parametrization=PARAMETRIZATIONS[name](shape, base),
        batch_size=BATCH_SIZE,
        steps=settings.steps,
        warmup_steps=0,
        peak_lr=settings.lr,
        final_lr_fraction=1.0,
    )
    return Subject(name, base, template)


def sweep_of(subject: Subject, axis: Axis, settings: Settings) -> Sweep:
    """The plans along one axis."""
    shape = subject.template.architecture
    unit = -(-64 // shape.d_head) * shape.d_head
    widths = settings.widths or (unit, 2 * unit, 4 * unit, 8 * unit)
    values = {"width": widths, "head": settings.head_widths, "depth": settings.depths}[axis]
    if min((*values, *widths), default=1) < 1:
        raise ValueError(f"{axis} {min(*values, *widths)} is no size; give numbers from 1 on")
    start = replace(shape, d_model=N_HEADS * shape.d_head, n_heads=N_HEADS)
    smallest = shape_at(start, "width", min(widths)) if axis == "depth" else start
    smallest = shape_at(smallest, axis, min(values, default=1))
    table = subject.table(smallest)
    template = replace(subject.template, architecture=smallest, parametrization=table(smallest))
    return sweep(template, table, axis, values)


def check_direct(subject: Subject, made: Sweep) -> dict[str, list[str]]:
    """The laws of single tensors, at twice the smallest width and depth of a sweep."""
    smallest = made.plans[0].architecture
    shape = replace(shape_at(smallest, "width", 2 * smallest.d_model), n_layers=2 * smallest.n_layers)
    plan = replace(made.plans[0], architecture=shape, parametrization=subject.table(smallest)(shape))
    model = initialize(GPT(shape, plan.parametrization), torch.Generator().manual_seed(0))
    promise, adamw = Promise(subject.parametrization, subject.based_on(smallest), shape), optimizer(model, plan)
    set_learning_rate(adamw, plan.peak_lr)
    return {
        "groups": broken_groups(model, adamw, plan, promise),
        "start": broken_start(model, promise),
        "forward": broken_forward(model, promise),
    }


def batches_from(settings: Settings) -> Callable[[Plan, int], StepBatches]:
    """Where the tokens of a run come from: the pack, or the made-up language."""
    if settings.data is not None:
        shards = Shards.open(settings.data, "train")
        return lambda plan, seed: PackedBatches(shards, plan.architecture.seq_len, plan.batch_size, seed)
    return lambda plan, seed: MarkovBatches(
        plan.architecture.vocab_size, plan.architecture.seq_len, plan.batch_size, seed
    )


def measured(subject: Subject, made: Sweep, settings: Settings) -> list[Size]:
    """Every size of every run of a sweep, with a bar."""
    seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
    found: list[Size] = []
    with Steps(f"{subject.parametrization} over {made.axis}", len(seeds) * len(made.values)) as progress:
        for n_done, rows in enumerate(measure(made, batches_from(settings), seeds), 1):
            found += rows
            progress.show(n_done, f"{made.axis} {rows[0].x}")
    return found


def check(subject: Subject, axes: Sequence[Axis], settings: Settings) -> Finding:
    """The coordinate check along the axes, and the direct laws."""
    started = time.perf_counter()
    sweeps = {axis: sweep_of(subject, axis, settings) for axis in axes or AXES[subject.parametrization]}
    found = {axis: measured(subject, made, settings) for axis, made in sweeps.items()}
    return Finding(
        subject=subject,
        sizes=found,
        slopes={axis: slopes(axis, rows) for axis, rows in found.items()},
        direct=check_direct(subject, next(iter(sweeps.values()))),
        transfer=None,
        seconds=time.perf_counter() - started,
    )


def check_transfer(
    finding: Finding, settings: Settings, steps: int, octaves: int, record: Path, workers: Workers
) -> Finding:
    """The same finding with the learning-rate transfer over its widths."""
    assert settings.data is not None
    started = time.perf_counter()
    made = sweep_of(finding.subject, "width", settings)
    found = transfer(made, rates_around(settings.lr, octaves), steps, settings.data, record, workers)
    return finding._replace(transfer=found, seconds=finding.seconds + time.perf_counter() - started)


def described(finding: Finding) -> str:
    """The verdict as a table: quantity, slope with two standard errors, allowed, verdict."""
    subject, lines = finding.subject, []
    for axis, found in finding.slopes.items():
        lines.append(
            f"{subject.parametrization} over {axis}: power of the {axis}, at the start and in the change by training"
        )
        lines += [
            f"  {row.quantity:<19} {row.moment:<14} {row.power:>+z6.2f} +-{row.margin:.2f}"
            f"   {row.lowest:+.2f} to {row.highest:+.2f}   {'holds' if row.holds else 'DOES NOT HOLD'}"
            for row in judged(found)
        ]
    for law, broken in finding.direct.items():
        lines.append(f"{subject.parametrization} {law}: {f'{len(broken)} broken, {broken[0]}' if broken else 'holds'}")
    if finding.transfer is not None:
        verdict = "holds" if finding.transfer.holds else "DOES NOT HOLD"
        lines.append(f"{subject.parametrization} transfer: {verdict}: {finding.transfer}")
    verdict = f"DOES NOT HOLD in {len(finding.broken)} places" if finding.broken else "HOLDS"
    return "\n".join([*subject.notes, *lines, f"{subject.parametrization} {verdict} ({finding.seconds:.0f} s)", ""])


def mapping(finding: Finding) -> dict[str, object]:
    """The same as plain JSON values, every measured slope included."""
    found = finding.transfer
    return {
        "parametrization": finding.subject.parametrization,
        "notes": list(finding.subject.notes),
        "base": config.to_mapping(finding.subject.base),
        "holds": not finding.broken,
        "broken": finding.broken,
        "slopes": [{**slope._asdict(), "holds": slope.holds} for rows in finding.slopes.values() for slope in rows],
        "direct": finding.direct,
        "transfer": None
        if found is None
        else {"rates": found.rates, "loss_by_width": found.loss_by_x, "drift": found.drift},
        "seconds": round(finding.seconds, 1),
    }
