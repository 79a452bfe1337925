"""What a run folder says about its run, ready to be drawn and told."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cerebras_gpt.plan.plan import Plan, Prediction
from cerebras_gpt.record import read_metrics

Row = Mapping[str, object]
Series = NDArray[np.float64]
Verdict = Literal["inside", "better", "worse"]


def number(value: object) -> float:
    """The value as a float; NaN when it is missing or no number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


@dataclass(frozen=True)
class Run:
    """A training run as its folder records it, finished or not."""

    path: Path
    plan: Plan
    rows: tuple[Row, ...]
    """What happened, in order."""
    baselines: Mapping[str, float]
    """Bits per byte of what must be beaten, by name."""
    calibration: Row
    """Measured speed of the machine before the run."""

    @property
    def name(self) -> str:
        """The plan's name."""
        return self.plan.name

    def of(self, kind: str) -> list[Row]:
        """The rows of one kind, oldest first."""
        return [row for row in self.rows if row.get("kind") == kind]

    def series(self, kind: str, key: str) -> tuple[Series, Series]:
        """Tokens and values of one quantity where both are finite numbers: (n,), (n,)."""
        pairs = np.array([(number(row.get("tokens")), number(row.get(key))) for row in self.of(kind)])
        pairs = pairs.reshape(-1, 2)
        pairs = pairs[np.isfinite(pairs).all(axis=1)]
        return pairs[:, 0], pairs[:, 1]

    def last(self, kind: str, key: str) -> float:
        """The newest finite value of one quantity; NaN before there is one."""
        values = self.series(kind, key)[1]
        return float(values[-1]) if len(values) else math.nan

    def median(self, key: str) -> float:
        """The middle value of one training quantity; NaN before there is one."""
        values = self.series("train", key)[1]
        return float(np.median(values)) if len(values) else math.nan

    @property
    def tokens(self) -> float:
        """Tokens seen so far."""
        return max(float(self.series(kind, "tokens")[1].max(initial=0)) for kind in ("train", "held_out"))

    @property
    def seconds(self) -> float:
        """Time of training so far."""
        return self.last("train", "seconds")

    @property
    def is_finished(self) -> bool:
        """Whether every planned step is done."""
        return any(number(row.get("step")) >= self.plan.steps for row in self.rows if row.get("kind") != "start")

    @property
    def resumed_at(self) -> list[float]:
        """Tokens seen where training went on from a checkpoint."""
        steps = [number(row.get("step")) for row in self.of("start")]
        return [step * self.plan.tokens_per_step for step in steps if 0 < step < self.plan.steps]

    @property
    def bits_per_byte(self) -> float:
        """The newest held-out bits per byte; NaN before there is one."""
        return self.last("held_out", "bits_per_byte")

    @property
    def bits_per_byte_of_a_nat(self) -> float:
        """Factor from nats per token to bits per byte, as the newest held-out row has it; NaN before there is one."""
        for row in reversed(self.of("held_out")):
            factor = number(row.get("bits_per_byte")) / (number(row.get("loss")) or math.nan)
            if math.isfinite(factor) and factor > 0:
                return factor
        return math.nan

    @property
    def verdict(self) -> Verdict | None:
        """How the finished run stands to its prediction's band; None without a prediction or an end."""
        band = self.plan.prediction
        if band is None or not self.is_finished or math.isnan(self.bits_per_byte):
            return None
        return judge(self.bits_per_byte, band)


def judge(bits_per_byte: float, band: Prediction) -> Verdict:
    """Where a result lies: inside the predicted band, better (below) or worse (above)."""
    if band.low <= bits_per_byte <= band.high:
        return "inside"
    return "better" if bits_per_byte < band.low else "worse"


def _optional(path: Path) -> dict[str, object]:
    """The JSON mapping in a file; empty when there is no such file."""
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); delete it or write it again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no mapping; delete it or write it again")
    return value


def read_run(path: Path) -> Run:
    """The run in a folder; raises FileNotFoundError when the folder holds no plan."""
    if not (path / "plan.json").exists():
        raise FileNotFoundError(f"{path} holds no plan.json; give a run folder, the --out of pretrain or quickstart")
    rows = tuple(read_metrics(path / "metrics.jsonl"))
    given = {name: number(value) for name, value in _optional(path / "baselines.json").items()}
    baselines = {name: bits for name, bits in given.items() if math.isfinite(bits)}
    return Run(path, Plan.load(path), rows, baselines, _optional(path / "calibration.json"))
