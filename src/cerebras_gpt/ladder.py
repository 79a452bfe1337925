"""The ladder: small compute-optimal runs, a law, a prediction on disk, and only then the run that was predicted."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cerebras_gpt import config
from cerebras_gpt.data.shards import Shards
from cerebras_gpt.distributed import World
from cerebras_gpt.files import read_json, replace_text, sync_folder
from cerebras_gpt.plan.families import SP_BASE, Base
from cerebras_gpt.plan.ladder_law import Climbed, Foretold, Rung, foretell
from cerebras_gpt.plan.plan import Plan, Prediction
from cerebras_gpt.plan.rungs import N_SEEDS, Family, Limits, check_rungs, flops_of, ladder_widths
from cerebras_gpt.plan.tuned import Tuned
from cerebras_gpt.report.ladder_figures import write_ladder
from cerebras_gpt.train.calibrate import calibrated, fastest, keep
from cerebras_gpt.train.held_out import AT_THE_END
from cerebras_gpt.train.pilot import QUICK, held_out_bits
from cerebras_gpt.train.pretrain import pretrain
from cerebras_gpt.train.speed import Stopwatch, measure_speed
from cerebras_gpt.train.trial import Outcome, Trial, Workers, outcomes

DESIGN, RECORD, PREDICTION, VERDICT = "ladder.json", "rungs.jsonl", "prediction.json", "verdict.json"
PICTURE, RUN, TWIN = "ladder.png", "run", "twin.json"

SMALL_BASE = Base(d_model=32, n_layers=2, init_std=0.17, embedding_scale=3.0)
SMALL_PEAK_LR = 0.02
"""The std as tuned at width 32 (benchmarks/mutransfer.py), where the published values, of width 256, would have a
multiplier of 1/8; the rate and the scale are choices (docs/ladder.md)."""

MEASURED_WIDTHS = (16, 64, 128)
TWIN_RATES = tuple(1e-3 * 2**octave for octave in range(5))
TWIN_RUNG = 2
"""The rung, from 0, on which the learning rate of the twin is chosen: the best of TWIN_RATES."""


@dataclass(frozen=True)
class Design:
    """All that decides a ladder's results; kept in its folder, because its sizes come from a measured speed."""

    family: Family
    widths: tuple[int, ...]
    """The last one is predicted."""
    seed: int
    data_fingerprint: str
    asked: dict[str, str]
    """What the person asked for, so that going on with another wish is noticed."""

    def trials(self, family: Family, widths: Sequence[int], n_seeds: int = N_SEEDS) -> list[Trial]:
        """Runs of a family at these widths, all seeds of one width together."""
        plans = [family.plan(width, seed) for width in widths for seed in range(self.seed, self.seed + n_seeds)]
        return [Trial(f"{plan.name} seed {plan.seed}", plan, AT_THE_END) for plan in plans]


@dataclass(frozen=True)
class Wish:
    """What a person asks of a ladder."""

    minutes: float = 60.0
    n_rungs: int = 9
    parametrization: str = "mup"
    seed: int = 0
    tuned: Path | None = None

    def family(self, vocab_size: int) -> Family:
        """The family of the rungs: the tuned values, or those of small runs."""
        if self.tuned is None:
            if self.parametrization == "sp":
                raise ValueError(
                    "a ladder in sp needs a learning rate of its own; give --tuned, or --twin sp beside muP"
                )
            return Family(self.parametrization, SMALL_BASE, SMALL_PEAK_LR, vocab_size)
        tuned = Tuned.load(self.tuned)
        if tuned.parametrization != self.parametrization:
            raise ValueError(
                f"{self.tuned} was tuned in {tuned.parametrization}; give --parametrization {tuned.parametrization}"
            )
        return Family(tuned.parametrization, tuned.base, tuned.peak_lr, vocab_size)

    def words(self) -> dict[str, str]:
        """The wish as it is kept."""
        return {name: str(value) for name, value in self.__dict__.items()}


def design(wish: Wish, data: Path) -> Design:
    """The widest ladder for the time and the text, from speeds measured here."""
    check_rungs(wish.n_rungs)
    train, held_out = (Shards.open(data, split, verify=False) for split in ("train", "val"))
    family = wish.family(train.vocab_size)
    n_scored = AT_THE_END.overlap * min(held_out.n_tokens, AT_THE_END.n_tokens)
    limits = Limits(60 * wish.minutes, train.n_tokens, n_scored)
    widths = ladder_widths(family, wish.n_rungs, limits, _Speeds(family))
    return Design(family, widths, wish.seed, train.fingerprint, wish.words())


class _Speeds:
    """Tokens a second at any width, between three measured ones a power law of the compute of a token."""

    def __init__(self, family: Family) -> None:
        self.family = family
        execution = fastest(family.plan(MEASURED_WIDTHS[1]), QUICK).execution
        self.known = [
            (self._flops(width), math.log(measure_speed(family.plan(width), execution, QUICK).tokens_per_second))
            for width in MEASURED_WIDTHS
        ]

    def _flops(self, width: int) -> float:
        return math.log(self.family.flops(width) / self.family.plan(width).tokens)

    def __call__(self, width: int) -> float:
        x = self._flops(width)
        (x0, y0), (x1, y1) = self.known[:2] if x < self.known[1][0] else self.known[1:]
        return math.exp(y0 + (y1 - y0) * (x - x0) / (x1 - x0))


def begun(wish: Wish, data: Path, out: Path) -> Design:
    """The design in the folder, or a new one; raises ValueError when the folder holds a ladder of another wish."""
    file = out / DESIGN
    if not file.exists():
        made = design(wish, data)
        begin(made, out)
        return made
    kept = config.from_mapping(Design, read_json(file))
    if kept.asked != wish.words():
        differ = ", ".join(name for name, text in wish.words().items() if kept.asked.get(name) != text)
        raise ValueError(f"{out} holds a ladder of another {differ}; give another --out, or what is in {file}")
    return kept


def begin(made: Design, out: Path) -> None:
    """Writes what identifies a ladder, before its first rung."""
    out.mkdir(parents=True, exist_ok=True)
    replace_text(out / DESIGN, json.dumps(config.to_mapping(made), indent=2) + "\n")


def climb(design: Design, data: Path, out: Path, workers: Workers) -> Climbed:
    """Trains the rungs, writes the prediction, trains what was predicted; the same call goes on after a kill."""
    if Shards.open(data, "train", verify=False).fingerprint != design.data_fingerprint:
        raise ValueError(f"{out} was started on other data; give another --out, or the data it began with")
    last = design.family.plan(design.widths[-1], design.seed)
    calibration = calibrated(last, out, Stopwatch(1.0))
    trials = design.trials(design.family, design.widths[:-1])
    found = outcomes(trials, data, out / RECORD, workers, calibration.execution, "rungs")
    foretold = foretell(
        rungs_of(trials, found, data), last.architecture.d_model, design.family.flops(design.widths[-1])
    )
    write_durably(out / PREDICTION, config.to_mapping(foretold))
    keep(calibration, out / RUN)
    pretrain(predicted_plan(last, foretold), data, out / RUN, World())
    reached = rung_of([last], [held_out_bits(out / RUN)])
    climbed = Climbed(foretold, reached)
    write_durably(out / VERDICT, {"measured": reached.mean, "error": climbed.error, "is_inside": climbed.is_inside})
    write_ladder(climbed, out / PICTURE)
    return climbed


def predicted_plan(plan: Plan, foretold: Foretold) -> Plan:
    """The last rung's plan with the prediction in it."""
    law = f"power law of {len(foretold.rungs)} rungs"
    return replace(plan, prediction=Prediction(law, foretold.bits_per_byte, foretold.low, foretold.high))


def write_durably(path: Path, values: dict[str, object]) -> None:
    """A JSON file that a power cut after this call leaves as it is; one that says the same is left untouched."""
    text = json.dumps(values, indent=2) + "\n"
    if not path.exists() or path.read_text("utf-8") != text:
        replace_text(path, text)
        sync_folder(path.parent)


def with_twin(climbed: Climbed, design: Design, data: Path, out: Path, workers: Workers) -> Climbed:
    """The ladder with the same sizes and tokens under SP, at the one learning rate that is best on the third rung."""
    execution = calibrated(design.family.plan(design.widths[-1]), out, Stopwatch(1.0)).execution

    def losses(trials: list[Trial], title: str) -> list[Outcome]:
        return outcomes(trials, data, out / RECORD, workers, execution, title)

    families = [replace(design.family, parametrization="sp", base=SP_BASE, peak_lr=rate) for rate in TWIN_RATES]
    tried = losses([design.trials(family, design.widths[TWIN_RUNG:][:1], 1)[0] for family in families], "SP rates")
    best = families[min(range(len(tried)), key=lambda i: tried[i].held_out)]
    fitted = design.trials(best, design.widths[:-1])
    last = design.trials(best, design.widths[-1:], 1)
    found = losses([*fitted, *last], "SP twin")
    rungs = [*rungs_of(fitted, found[: len(fitted)], data), *rungs_of(last, found[len(fitted) :], data)]
    whole = replace(climbed, twin=tuple(rungs))
    write_durably(out / TWIN, {"rungs": [config.to_mapping(rung) for rung in rungs]})
    write_ladder(whole, out / PICTURE)
    return whole


def rungs_of(trials: Sequence[Trial], found: Sequence[Outcome], data: Path) -> list[Rung]:
    """The rungs of trials and their outcomes, those of one width together."""
    seq_len = trials[0].plan.architecture.seq_len
    windows = AT_THE_END.windows(Shards.open(data, "val", verify=False), seq_len, 1)
    bits_of_a_nat = windows.n_targets / windows.n_bytes / math.log(2)
    by_width: dict[int, list[tuple[Plan, float]]] = {}
    for trial, outcome in zip(trials, found, strict=True):
        pair = trial.plan, outcome.held_out * bits_of_a_nat
        by_width.setdefault(trial.plan.architecture.d_model, []).append(pair)
    return [rung_of(*zip(*pairs, strict=True)) for pairs in by_width.values()]  # type: ignore[arg-type]


def rung_of(plans: Sequence[Plan], bits: Sequence[float]) -> Rung:
    """One size with the losses of all its seeds."""
    plan = plans[0]
    shape = plan.architecture
    return Rung(plan.name, shape.d_model, shape.n_parameters, plan.tokens, flops_of(plan), tuple(bits))
