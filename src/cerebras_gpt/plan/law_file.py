"""A fitted law as a file: what it was fitted to and how, so that every interval can be made again from it."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cerebras_gpt import config
from cerebras_gpt.files import read_json, replace_text
from cerebras_gpt.plan.certainty import Constant
from cerebras_gpt.plan.flops import FORMULAS
from cerebras_gpt.plan.iso_flop import IsoFlopFit, fit_iso_flop
from cerebras_gpt.plan.parametric_law import ParametricFit, fit_parametric
from cerebras_gpt.plan.points import NATS, Point, to_rows
from cerebras_gpt.plan.power_law import PowerFit, fit_power
from cerebras_gpt.plan.robust_law import RobustFit, fit_robust

AnyFit = PowerFit | RobustFit | ParametricFit | IsoFlopFit

KINDS: dict[str, Callable[["LawFile", Sequence[Point]], AnyFit]] = {
    "power": lambda law, points: fit_power(points, law.formula, law.unit, law.irreducible),
    "robust": lambda law, points: fit_robust(points, law.formula, law.unit),
    "parametric": lambda law, points: fit_parametric(points, law.unit),
    "isoflop": lambda law, points: fit_iso_flop(points, law.unit),
}
"""How each law is fitted."""

SAME = 1e-4
"""Relative; constants that differ more do not come from the points beside them."""


@dataclass(frozen=True)
class LawFile:
    """Everything that a fit depends on, and what came out."""

    law: str
    """One of KINDS."""
    points: tuple[Point, ...]
    formula: str = "cerebras"
    """How FLOPs were counted."""
    unit: str = NATS
    irreducible: float | None = None
    """c of a power law where it was given, not fitted."""
    constants: tuple[Constant, ...] = ()
    """As fitted, with 95 % intervals."""

    def __post_init__(self) -> None:
        if self.law not in KINDS:
            raise ValueError(config.unknown("law", self.law, KINDS))
        if self.formula not in FORMULAS:
            raise ValueError(config.unknown("FLOP formula", self.formula, FORMULAS))
        if self.irreducible is not None and self.law != "power":
            raise ValueError(f"a given irreducible loss goes with the law power, not {self.law}")

    def fit(self, points: Sequence[Point] | None = None) -> AnyFit:
        """The law fitted to its points, or to others in the same way."""
        return KINDS[self.law](self, self.points if points is None else points)

    def to_json(self) -> str:
        """The file's text."""
        values = {**config.to_mapping(self), "points": to_rows(self.points)}
        return json.dumps(values, indent=1) + "\n"

    def save(self, path: Path) -> None:
        """Writes the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> "LawFile":
        """A law from its file; raises ValueError where the file is none, or contradicts itself."""
        found = read_json(path)
        try:
            inner = {"points": _all(Point, found.get("points")), "constants": _all(Constant, found.get("constants"))}
            law = config.from_mapping(cls, {**found, **inner})
        except ValueError as error:
            raise ValueError(f"{path} is not a law: {error}; make one with `cerebras-gpt fit`") from None
        for kept, made in zip(law.constants, law.fit().constants(), strict=False):
            if not math.isclose(kept.value, made.value, rel_tol=SAME, abs_tol=SAME):
                raise ValueError(f"{path} says {kept.name} {kept.value:g}, its points {made.value:g}; fit it again")
        return law


def _all(cls: type, rows: object) -> list[object]:
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError(f"it has no list of {cls.__name__.lower()}s")
    return [config.from_mapping(cls, row) for row in rows]


def fitted(law: LawFile) -> tuple[LawFile, AnyFit]:
    """The law with its constants filled in, and the fit that they come from."""
    fit = law.fit()
    return LawFile(law.law, law.points, law.formula, law.unit, law.irreducible, fit.constants()), fit
