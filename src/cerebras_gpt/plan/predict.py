"""What a law expects of a run that has not been trained: the loss with its interval, and how far off that reaches."""

import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from cerebras_gpt import config
from cerebras_gpt.plan.certainty import Reach, reach
from cerebras_gpt.plan.flops import training_flops
from cerebras_gpt.plan.inference import Trade, optimal_for_budget
from cerebras_gpt.plan.iso_flop import IsoFlopFit
from cerebras_gpt.plan.law_file import AnyFit, LawFile
from cerebras_gpt.plan.laws import EPOCH, PARAMETRIC_LAWS, PUBLISHED_SP, ParametricLaw
from cerebras_gpt.plan.parametric_law import ParametricFit
from cerebras_gpt.plan.plan import published_plan
from cerebras_gpt.plan.points import NATS, Point
from cerebras_gpt.plan.power_law import fit_power
from cerebras_gpt.plan.published import published_points

PUBLISHED_LAWS = ("published-sp", "published-mup")
NAMED_LAWS = (*PUBLISHED_LAWS, *PARAMETRIC_LAWS)
"""Laws that need no file."""


class Law(NamedTuple):
    """A law to ask: fitted to points, or known by its constants alone."""

    name: str
    fit: AnyFit | None
    formula: str
    unit: str


class Asked(NamedTuple):
    """The run to predict, as far as it is known."""

    flops: float | None = None
    n_parameters: float | None = None
    n_tokens: float | None = None


class Expected(NamedTuple):
    """What a law says of one run."""

    unit: str
    loss: float | None
    """None where the law only tells sizes."""
    low: float | None
    high: float | None
    """Ends of the 90 % interval; None where no points came with the law."""
    flops: float | None
    n_parameters: float | None
    """Of the run, or the best for its compute."""
    n_tokens: float | None
    reach: Reach | None
    n_parameters_between: tuple[float, float] | None = None
    """The 90 % interval of the best size, from IsoFLOP curves."""


def law_named(name: str) -> Law:
    """A law by its name or in a file; raises ValueError naming the nearest one."""
    if name == "published-sp":
        fit = fit_power(published_points("sp"))
        return Law(name, replace(fit, law=PUBLISHED_SP), "cerebras", NATS)
    if name == "published-mup":
        return Law(name, fit_power(published_points("mup")), "cerebras", NATS)
    if name in PARAMETRIC_LAWS:
        return Law(name, None, "6nd", NATS)
    if Path(name).exists():
        file = LawFile.load(Path(name))
        return Law(name, file.fit(), file.formula, file.unit)
    if Path(name).suffix or "/" in name:
        raise FileNotFoundError(f"no law at {name}; make one with: cerebras-gpt fit RUN... --out {name}")
    raise ValueError(config.unknown("law", name, NAMED_LAWS))


def asked(law: Law, flops: float | None, size: str | None, n_parameters: float | None, tokens: float | None) -> Asked:
    """The run that a person means: by its compute, by a published size, or by parameters and tokens."""
    for name, value in (("FLOPs", flops), ("parameters", n_parameters), ("tokens", tokens)):
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{value:g} {name} cannot be; give a positive number such as 1e18")
    if sum(given is not None for given in (flops, size, n_parameters)) != 1:
        raise ValueError("give one of --flops, --size and --parameters (with --tokens)")
    if size is not None:
        plan = published_plan(size)
        count = float(tokens or plan.tokens)
        return Asked(training_flops(plan.architecture, count, law.formula), plan.architecture.n_parameters, count)
    if n_parameters is None:
        if tokens is not None:
            raise ValueError("--tokens goes with --parameters or --size; compute alone already says all to a law of it")
        return Asked(flops)
    if tokens is None:
        raise ValueError("--parameters needs --tokens; compute-optimal are about 20 tokens for each")
    return Asked(6 * n_parameters * tokens if law.formula == "6nd" else None, n_parameters, tokens)


def predict(law: Law, run: Asked) -> Expected:
    """What the law says of the run."""
    if law.fit is None or isinstance(law.fit, ParametricFit):
        return _parametric(law, run)
    if run.flops is None:
        raise ValueError(f"this law counts FLOPs by {law.formula!r}, which needs a shape; give --flops or --size")
    where = reach(law.fit.points, run.flops)
    if isinstance(law.fit, IsoFlopFit):
        best, low, high = law.fit.optimal_parameters(run.flops)
        return Expected(law.unit, None, None, None, run.flops, best, None, where, (low, high))
    point = Point(run.n_parameters, run.n_tokens, math.nan, run.flops)
    return Expected(
        law.unit, law.fit.expected(point), *law.fit.interval(point), run.flops, run.n_parameters, run.n_tokens, where
    )


def _parametric(law: Law, run: Asked) -> Expected:
    constants = constants_of(law)
    n, d = run.n_parameters, run.n_tokens
    if n is None or d is None:
        n, d = constants.optimum(run.flops or math.nan)
    if not isinstance(law.fit, ParametricFit):
        return Expected(law.unit, constants.loss(n, d), None, None, 6 * n * d, n, d, None)
    bare = [Point(p.n_parameters, p.n_tokens, p.loss) for p in law.fit.points]
    point = Point(n, d, math.nan)
    where = reach(bare, 6 * n * d)
    return Expected(law.unit, law.fit.expected(point), *law.fit.interval(point), 6 * n * d, n, d, where)


def constants_of(law: Law) -> ParametricLaw:
    """The law of parameters and tokens that it is; EPOCH for one that knows compute alone."""
    if isinstance(law.fit, ParametricFit):
        return law.fit.law
    return PARAMETRIC_LAWS.get(law.name, EPOCH)


class Used(NamedTuple):
    """What a model costs that is also used."""

    trade: Trade
    inference_tokens: float
    law: str
    """By which law of parameters and tokens."""


def used(law: Law, expected: Expected, inference_tokens: float) -> Used:
    """The size and tokens of least training and inference together, at the loss of a compute-optimal run like this."""
    if expected.flops is None:
        raise ValueError("--inference-tokens needs a training budget; give --flops or --size")
    name = law.name if isinstance(law.fit, ParametricFit) or law.name in PARAMETRIC_LAWS else "epoch"
    return Used(optimal_for_budget(expected.flops, inference_tokens, constants_of(law)), inference_tokens, name)
