"""A fitted law, its deviations, its test and its warnings, in lines for people and as JSON values."""

import math
from typing import NamedTuple

from cerebras_gpt.plan.certainty import FEWEST_DECADES, Verdict, deviations, leave_largest_out, reach
from cerebras_gpt.plan.iso_flop import IsoFlopFit
from cerebras_gpt.plan.law_file import AnyFit, LawFile
from cerebras_gpt.plan.points import compute, named
from cerebras_gpt.plan.predict import Expected, Used
from cerebras_gpt.plan.published import published
from cerebras_gpt.report.words import count

FORMS = {
    "power": "L(C) = (C / f0)^-a + c",
    "robust": "L(C) = (C / f0)^-a + c, Huber loss",
    "parametric": "L(N, D) = E + A / N^alpha + B / D^beta",
    "isoflop": "best N = k C^a through the bottoms of parabolas",
}
MEANINGS = {
    "exponent": "a",
    "scale_flops": "f0, FLOPs",
    "irreducible": "c",
    "growth": "power of C by which the best N grows",
    "scale_parameters": "k",
}


NOTHING = 1e-3
"""An irreducible loss below it is none."""


class Told(NamedTuple):
    """What there is to say of a fit beside its constants."""

    deviations: list[float]
    verdict: Verdict | None
    """Of the largest run, left out; None where too few are left or the law tells only sizes."""
    warnings: list[str]


def told(law: LawFile, fit: AnyFit) -> Told:
    """The deviations, the leave-largest-out test, and what should be known before the law is believed."""
    verdict = None
    if not isinstance(fit, IsoFlopFit):
        try:
            verdict = leave_largest_out(law.fit, law.points)
        except ValueError:  # too few are left for a law
            verdict = None
    return Told(deviations(fit), verdict, _warnings(law, fit, verdict))


def _warnings(law: LawFile, fit: AnyFit, verdict: Verdict | None) -> list[str]:
    found = [f"{row.point.name}: {row.note}" for row in published() if row.note and row.point in law.points]
    decades = reach(fit.points, float(compute(fit.points).max())).decades
    if decades < FEWEST_DECADES:
        found.append(
            f"the runs span {decades:.2f} decades of compute; below {FEWEST_DECADES:g} nothing beyond is known"
        )
    for constant in fit.constants():
        if constant.name in ("irreducible", "E") and constant.low <= NOTHING and law.irreducible is None:
            found.append("the runs cannot tell the irreducible loss from 0; far predictions hang on it")
    if verdict is not None and not verdict.is_inside:
        found.append(f"{verdict.name}, left out, fell outside its 90 % interval; the law does not carry that far")
    return found


def fit_text(law: LawFile, fit: AnyFit) -> str:
    """The fit in lines."""
    said = told(law, fit)
    lines = [f"law       {FORMS[law.law]}", f"loss      {law.unit}; FLOPs by {law.formula}"]
    flops = compute(fit.points)
    lines.append(f"points    {len(fit.points)}, from {flops.min():.3g} to {flops.max():.3g} FLOPs")
    lines.append(f"noise     {100 * fit.noise:.2f} % of a run about the law")
    lines += ["", f"{'constant':<18}{'value':>12}   95 % interval"]
    for constant in law.constants:
        fixed = law.irreducible is not None and constant.name == "irreducible"
        between = "given" if fixed else f"{constant.low:.4g} to {constant.high:.4g}"
        lines.append(
            f"{constant.name:<18}{constant.value:>12.4g}   {between:<24} {MEANINGS.get(constant.name, '')}".rstrip()
        )
    lines += ["", f"{'run':<22}{'FLOPs':>10}{'loss':>9}{'law':>9}{'above':>10}"]
    rows = zip(named(fit.points), fit.points, flops, said.deviations, strict=True)
    lines += [
        f"{name:<22}{c:>10.3g}{point.loss:>9.4f}{point.loss / (1 + above):>9.4f}{100 * above:>+8.2f} %"
        for name, point, c, above in rows
    ]
    if isinstance(fit, IsoFlopFit):
        lines += ["", *(_minimum_line(*minimum) for minimum in fit.minima)]
    if said.verdict is not None:
        lines += ["", f"left out: {verdict_line(said.verdict)}"]
    return "\n".join([*lines, *(f"warning: {line}" for line in said.warnings)]) + "\n"


def _minimum_line(flops: float, n_parameters: float, n_tokens: float, loss: float) -> str:
    return f"at {flops:.3g} FLOPs the best is {count(n_parameters)} parameters on {count(n_tokens)} tokens: {loss:.4f}"


def verdict_line(verdict: Verdict) -> str:
    """Predicted, interval, measured."""
    inside = "inside" if verdict.is_inside else "outside"
    return (
        f"{verdict.name} predicted {verdict.predicted:.4f} (90 %: {verdict.low:.4f} to {verdict.high:.4f}), "
        f"measured {verdict.measured:.4f}: {100 * verdict.error:+.2f} %, {inside}"
    )


def fit_values(law: LawFile, fit: AnyFit) -> dict[str, object]:
    """The fit as JSON values."""
    said = told(law, fit)
    return {
        "law": law.law,
        "formula": law.formula,
        "unit": law.unit,
        "noise": fit.noise,
        "constants": {c.name: {"value": c.value, "low": c.low, "high": c.high} for c in law.constants},
        "deviations": dict(zip(named(fit.points), said.deviations, strict=True)),
        "left_out": None if said.verdict is None else {**said.verdict._asdict(), "error": said.verdict.error},
        "warnings": said.warnings,
    }


def expected_text(expected: Expected) -> str:
    """A prediction in lines."""
    lines = []
    if expected.loss is not None:
        if expected.low is None:
            between = "no interval: this law came without its runs"
        else:
            between = f"90 %: {expected.low:.4f} to {expected.high:.4f}"
        lines.append(f"loss        {expected.loss:.4f} {expected.unit} ({between})")
    if expected.flops is not None:
        lines.append(f"compute     {expected.flops:.3g} FLOPs")
    if expected.n_parameters is not None:
        low, high = expected.n_parameters_between or (math.nan, math.nan)
        between = f" (90 %: {count(low)} to {count(high)})" if expected.n_parameters_between else ""
        lines.append(f"parameters  {count(expected.n_parameters)}{between}")
    if expected.n_tokens is not None:
        lines.append(f"tokens      {count(expected.n_tokens)}")
    if expected.reach is not None:
        lines.append(f"reach       {expected.reach}")
    return "\n".join(lines) + "\n"


def expected_values(expected: Expected) -> dict[str, object]:
    """A prediction as JSON values."""
    values = expected._asdict()
    where = expected.reach
    far = {"ratio": where.ratio, "decades": where.decades, "is_too_far": where.is_too_far} if where else None
    return {**values, "reach": far}


def used_text(used: Used) -> str:
    """The best size for training and use together, in a line."""
    n, d, train, total = used.trade
    return (
        f"with use    {count(n)} parameters on {count(d)} tokens cost {total:.3g} FLOPs in all "
        f"({train:.3g} in training) for {count(used.inference_tokens)} tokens of use, "
        f"the least at this loss by the law {used.law}\n"
    )
