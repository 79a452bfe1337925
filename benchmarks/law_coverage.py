"""Do intervals hold what they state: laws with known constants, noise on top, fitted again and again.

    python benchmarks/law_coverage.py --out benchmarks/results/DATE-law-coverage.json      (about 10 minutes, one core)
    python benchmarks/law_coverage.py --out FILE --trials 60 --only power-7

Stated are 95 % for constants and 90 % for the loss of one further run, at ten times the compute of the largest.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import scipy

from cerebras_gpt.plan.certainty import Fit
from cerebras_gpt.plan.iso_flop import fit_iso_flop
from cerebras_gpt.plan.laws import HOFFMANN, PUBLISHED_SP, PowerLaw
from cerebras_gpt.plan.parametric_law import fit_parametric
from cerebras_gpt.plan.points import Point
from cerebras_gpt.plan.power_law import fit_power
from cerebras_gpt.plan.published import published_points
from cerebras_gpt.plan.robust_law import fit_robust

PURE = PowerLaw(exponent=0.06, scale_flops=1e24, irreducible=0.0, formula="cerebras")
TARGET = (0.92, 0.98)
"""95 +- 3 %."""


def noisy(points: Sequence[Point], noise: float, generator: np.random.Generator) -> list[Point]:
    """The points with relative noise on their losses."""
    factors = np.exp(noise * generator.standard_normal(len(points)))
    return [Point(p.n_parameters, p.n_tokens, p.loss * float(f), p.flops) for p, f in zip(points, factors, strict=True)]


def along(law: PowerLaw, computes: Sequence[float]) -> list[Point]:
    """Exact points of a law of compute."""
    return [Point(None, None, law.loss(float(c)), float(c)) for c in computes]


def parabola(flops: float, n_parameters: float) -> float:
    """A loss whose best size is exactly 0.1 C^0.5: what an IsoFLOP curve assumes."""
    return PUBLISHED_SP.loss(flops) * float(np.exp(0.03 * np.log(n_parameters / (0.1 * flops**0.5)) ** 2))


SP = [point.flops or 0.0 for point in published_points("sp")]
GRID = [(float(n), float(n * r)) for n in np.geomspace(1e8, 1e10, 5) for r in (2, 7, 20, 60, 200)]
SMALL_GRID = [(float(n), float(n * r)) for n in np.geomspace(3e5, 1e7, 4) for r in (5, 10, 20, 40)]
ISO = [(float(c), float(0.1 * c**0.5 * k)) for c in np.geomspace(1e18, 1e21, 5) for k in np.geomspace(0.3, 3.5, 7)]
POWER = {"exponent": PUBLISHED_SP.exponent, "scale_flops": PUBLISHED_SP.scale_flops, "irreducible": 0.5066}
PURE_TRUTH = {"exponent": PURE.exponent, "scale_flops": PURE.scale_flops}
TERMS = {name: getattr(HOFFMANN, name) for name in ("E", "A", "alpha", "B", "beta")}
ON_GRID = [Point(n, d, HOFFMANN.loss(n, d), 6 * n * d) for n, d in GRID]
ON_SMALL = [Point(n, d, HOFFMANN.loss(n, d), 6 * n * d) for n, d in SMALL_GRID]
ON_ISO = [Point(n, c / 6 / n, parabola(c, n), c) for c, n in ISO]
FURTHER = along(PUBLISHED_SP, [10 * SP[-1]])[0]
FURTHER_GRID = Point(3e10, 6e11, HOFFMANN.loss(3e10, 6e11), 6 * 3e10 * 6e11)

Case = tuple[Callable[[list[Point]], Fit], list[Point], float, dict[str, float], Point | None]
CASES: dict[str, Case] = {
    "power-7": (fit_power, along(PUBLISHED_SP, SP), 0.007, POWER, FURTHER),
    "power-7-quiet": (fit_power, along(PUBLISHED_SP, SP), 0.0005, POWER, FURTHER),
    "power-5": (fit_power, along(PUBLISHED_SP, SP[:5]), 0.003, POWER, along(PUBLISHED_SP, [10 * SP[4]])[0]),
    "power-7-without-c": (lambda p: fit_power(p, irreducible=0.0), along(PURE, SP), 0.007, PURE_TRUTH,
                          along(PURE, [10 * SP[-1]])[0]),
    "robust-12": (fit_robust, along(PUBLISHED_SP, list(np.geomspace(1e18, 1e22, 12))), 0.002, POWER, FURTHER),
    "parametric-25": (fit_parametric, ON_GRID, 0.003, TERMS, FURTHER_GRID),
    "parametric-16": (fit_parametric, ON_SMALL, 0.002, TERMS, Point(1e8, 2e9, HOFFMANN.loss(1e8, 2e9))),
    "isoflop-5x7": (fit_iso_flop, ON_ISO, 0.003, {"growth": 0.5, "scale_parameters": 0.1}, None),
}  # fmt: skip


def covered(case: Case, trials: int, seed: int = 0) -> dict[str, float]:
    """The share of trials whose intervals hold each constant, and the loss of one run further out."""
    fit, points, noise, truth, further = case
    generator = np.random.default_rng(seed)
    inside: dict[str, list[bool]] = {name: [] for name in truth} | ({"prediction": []} if further else {})
    for _ in range(trials):
        found = fit(noisy(points, noise, generator))
        for constant in found.constants():
            if constant.name in truth:
                inside[constant.name].append(constant.low <= truth[constant.name] <= constant.high)
        if further is not None:
            low, high = found.interval(further)
            inside["prediction"].append(low <= noisy([further], noise, generator)[0].loss <= high)
    return {name: float(np.mean(hits)) for name, hits in inside.items()}


def main() -> None:
    """Runs the cases and writes what they covered."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--only", choices=CASES)
    given = parser.parse_args()
    results = {}
    for name in [given.only] if given.only else CASES:
        begun = time.perf_counter()
        shares = covered(CASES[name], given.trials)
        held = all(TARGET[0] <= share <= TARGET[1] for key, share in shares.items() if key != "prediction")
        seconds = round((time.perf_counter() - begun) / given.trials, 4)
        results[name] = {"points": len(CASES[name][1]), "noise": CASES[name][2], "inside": shares,
                         "constants_within_95_plus_minus_3": held, "seconds_per_fit": seconds}  # fmt: skip
        print(name, results[name], flush=True)
    told = {
        "command": "python benchmarks/law_coverage.py",
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, one thread",
        "versions": {"numpy": np.__version__, "scipy": scipy.__version__},
        "stated": {"constants": 0.95, "prediction": 0.90},
        "trials": given.trials,
        "cases": results,
    }
    given.out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
