"""A tuned point: what a search on a small proxy found, and how a plan of another shape takes it over."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cerebras_gpt import config
from cerebras_gpt.plan.families import PARAMETRIZATIONS, Base
from cerebras_gpt.plan.plan import Plan

FILE = "tuned.json"


@dataclass(frozen=True)
class Tuned:
    """The values that `tune` chose on the proxy, with all that one must know to trust them."""

    parametrization: str
    """A name of PARAMETRIZATIONS: how the values depend on shape."""
    base: Base
    """The proxy's width and depth, and the init std and embedding scale tuned there."""
    peak_lr: float
    """Peak learning rate at lr scale 1."""
    proxy: Plan
    """The plan of the chosen trial."""
    data_fingerprint: str
    """Of the pack that the proxy was trained on."""
    held_out: float
    """Nats per token of the chosen point, the mean over n_seeds seeds."""
    noise: float
    """Standard deviation of the held-out loss between seeds, nats per token."""
    n_seeds: int
    n_samples: int
    """Points that were tried, the repeats with other seeds not counted."""
    rises: dict[str, float]
    """Nats per token that a factor of two away from the best costs, by axis; from a quadratic fit."""
    tokens: int
    """Trained on in all trials together."""
    seconds: float
    """Of all trials together, on one thread each."""
    outcomes: str
    """File of all outcomes, beside this one."""

    def __post_init__(self) -> None:
        if self.parametrization not in PARAMETRIZATIONS:
            raise ValueError(config.unknown("parametrization", self.parametrization, PARAMETRIZATIONS))
        for name, value in {"peak_lr": self.peak_lr, **asdict(self.base)}.items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; it must be positive and finite")

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that name this result."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def to_json(self) -> str:
        """The result as indented JSON."""
        return json.dumps(config.to_mapping(self), indent=2) + "\n"

    @classmethod
    def load(cls, path: Path) -> "Tuned":
        """The result in a file or in the folder of a search; raises ValueError naming a file that is none."""
        file = path / FILE if path.is_dir() else path
        if not file.exists():
            raise FileNotFoundError(f"no tuned point at {file}; make one with: cerebras-gpt tune --data PACK --out DIR")
        try:
            return config.from_mapping(cls, json.loads(file.read_text("utf-8")))
        except ValueError as error:
            raise ValueError(f"{file} is not a tuned point: {error}") from None


Recipe = Callable[[Plan], Plan]
"""Gives a plan the learning rate and the parametrization that it shall have."""


def as_published(plan: Plan) -> Plan:
    """The plan with the values it has."""
    return plan


def tuned_plan(plan: Plan, tuned: Tuned) -> Plan:
    """The plan with the tuned learning rate, init std and embedding scale, carried over to its shape.

    The prediction is dropped, because it was for other values.
    """
    base = tuned.base
    reason = (
        f"peak lr {tuned.peak_lr:.4g}, init std {base.init_std:.4g}, embedding scale {base.embedding_scale:.4g} "
        f"({tuned.parametrization}): tuned on a proxy of width {base.d_model} and {base.n_layers} layers with "
        f"{tuned.n_samples} samples ({FILE} {tuned.hash}), in place of any such values above"
    )
    return replace(
        plan,
        parametrization=PARAMETRIZATIONS[tuned.parametrization](plan.architecture, base),
        peak_lr=tuned.peak_lr,
        prediction=None,
        reasons=(*plan.reasons, reason, *doubts(plan, tuned)),
    )


def doubts(plan: Plan, tuned: Tuned) -> list[str]:
    """What differs between the proxy and the plan that the parametrization does not carry values over."""
    ours, theirs = plan.architecture, tuned.proxy.architecture
    return [
        f"caution: tuned at {what} {there:,}, planned at {here:,}; {tuned.parametrization} carries nothing over that"
        for what, here, there, carriers in (
            ("width", ours.d_model, theirs.d_model, ("mup", "completep")),
            ("depth", ours.n_layers, theirs.n_layers, ("completep",)),
            ("vocabulary", ours.vocab_size, theirs.vocab_size, ()),
            ("tokens a step", plan.tokens_per_step, tuned.proxy.tokens_per_step, ()),
        )
        if here != there and tuned.parametrization not in carriers
    ]
