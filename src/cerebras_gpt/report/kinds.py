"""What a path holds, told by the one file that identifies it, and the pictures that belong to it."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from cerebras_gpt import config
from cerebras_gpt.files import read_json
from cerebras_gpt.plan.iso_flop import IsoFlopFit
from cerebras_gpt.plan.ladder_law import Climbed, Foretold, Rung
from cerebras_gpt.plan.law_file import LawFile
from cerebras_gpt.plan.laws import EPOCH
from cerebras_gpt.plan.tuned import FILE as TUNED
from cerebras_gpt.plan.tuned import Tuned
from cerebras_gpt.report.check_figures import transfer_figure
from cerebras_gpt.report.downstream_figures import DOWNSTREAM, downstream_figure, read_downstream
from cerebras_gpt.report.ladder_figures import ladder_figure
from cerebras_gpt.report.law_figures import iso_flop_figure, law_figure
from cerebras_gpt.report.law_points import run_point
from cerebras_gpt.report.trade_figures import trade_figure
from cerebras_gpt.report.tune_figures import AXES, Surface, surface_figure
from cerebras_gpt.report.twin_figures import twin_figure, twin_words
from cerebras_gpt.report.words import plain
from cerebras_gpt.train.transfer import Transfer

TWIN = "twin.json"
"""Beside a ladder's own files, if its sizes were trained under SP too."""
SPOKEN = {"mup": "muP", "completep": "CompleteP"}


class Drawn(NamedTuple):
    """A picture with its name in the page and its sentence."""

    name: str
    draw: Callable[[float], Figure]
    """At a width in inches."""
    words: str


def law_pictures(path: Path) -> list[Drawn]:
    """Of a law file: loss against compute with the band, deviations below; or the parabolas."""
    law = LawFile.load(path)
    fit = law.fit()
    if isinstance(fit, IsoFlopFit):
        return [Drawn("isoflop", partial(iso_flop_figure, fit, law.unit), "Loss against size at equal compute.")]
    words = "Loss against compute with the fitted law and the 90 % of runs; below, how far each run lies off the law."
    return [Drawn("law", partial(law_figure, fit, law.unit, ()), words)]


def ladder_pictures(folder: Path) -> list[Drawn]:
    """Of a ladder: law, band, prediction and result, its twin if it was trained, and what use would change."""
    foretold = _foretold(folder)
    run = folder / "run"
    if not (folder / "verdict.json").exists():
        raise ValueError(f"{folder} holds a ladder without its verdict; run `cerebras-gpt ladder` again to go on")
    point = run_point(run, "cerebras")
    n_parameters, n_tokens = int(point.n_parameters or 0), int(point.n_tokens or 0)
    last = Rung(point.name, foretold.d_model, n_parameters, n_tokens, foretold.flops, (point.loss,))
    words = "The fitted rungs, the law, what was predicted before the last run, and what it reached."
    trade = "Training and use together at equal loss, by the law of Besiroglu et al. 2024, extrapolated below 44M."
    return [
        Drawn("ladder", partial(ladder_figure, Climbed(foretold, last)), words),
        *_twin_pictures(folder, (*foretold.rungs, last)),
        Drawn("trade", partial(trade_figure, n_parameters, n_tokens, EPOCH), trade),
    ]


def _twin_pictures(folder: Path, rungs: Sequence[Rung]) -> list[Drawn]:
    """The family beside its twin, if that was trained."""
    if not (folder / TWIN).exists():
        return []
    twin = _rungs(read_json(folder / TWIN), folder / TWIN)
    family = read_json(folder / "ladder.json").get("family")
    name = str(family.get("parametrization")) if isinstance(family, dict) else "mup"
    name = SPOKEN.get(name, name)
    return [Drawn("twin", partial(twin_figure, rungs, twin, name), twin_words(rungs, twin, name))]


def _foretold(folder: Path) -> Foretold:
    found = read_json(folder / "prediction.json")
    return config.from_mapping(Foretold, {**found, "rungs": _rungs(found, folder / "prediction.json")})


def _rungs(found: Mapping[str, object], file: Path) -> tuple[Rung, ...]:
    rungs = found.get("rungs")
    if not isinstance(rungs, list):
        raise ValueError(f"{file} has no rungs; run `cerebras-gpt ladder` again")
    return tuple(config.from_mapping(Rung, row) for row in rungs)


def tune_pictures(folder: Path) -> list[Drawn]:
    """Of a search: the loss over each pair of the tuned values."""
    tuned, surface = Tuned.load(folder), Surface.load(folder)
    proxy = tuned.proxy.architecture
    costs = ", ".join(f"{plain(rise, 2)} for the {AXES[axis]}" for axis, rise in tuned.rises.items())
    words = (
        f"Held-out loss of {tuned.n_samples} samples on a proxy of width {proxy.d_model}; in a ring the chosen one: "
        f"peak learning rate {plain(tuned.peak_lr, 3)}, init std {plain(tuned.base.init_std, 3)}, embedding scale "
        f"{plain(tuned.base.embedding_scale, 3)}, {tuned.held_out:.3f} nats per token over {tuned.n_seeds} seeds."
    ) + (f" A factor of two off costs, in nats: {costs}." if costs else "")
    return [Drawn("surface", partial(surface_figure, surface), words)]


def check_pictures(folder: Path) -> list[Drawn]:
    """Of a check: loss against learning rate at each width, for every parametrization that was tried."""
    rows = json.loads((folder / "check.json").read_text("utf-8"))
    found = [(str(row["parametrization"]), _transfer(row["transfer"])) for row in rows if row.get("transfer")]
    words = "Held-out loss against the learning rate, a line for each width: where it transfers, the best stays put."
    return [Drawn("transfer", partial(transfer_figure, found), words)] if found else []


def _transfer(row: Mapping[str, Mapping[str, Sequence[float]]]) -> Transfer:
    by_x = {int(width): tuple(losses) for width, losses in row["loss_by_width"].items()}
    return Transfer(tuple(float(rate) for rate in row["rates"]), by_x)


def downstream_pictures(path: Path) -> list[Drawn]:
    """Of a list of task scores: score against compute."""
    return [Drawn("downstream", partial(downstream_figure, read_downstream(path)), "Scores of tasks against compute.")]


KINDS: dict[str, Callable[[Path], list[Drawn]]] = {
    "ladder.json": ladder_pictures,
    "check.json": check_pictures,
    TUNED: tune_pictures,
    DOWNSTREAM: downstream_pictures,
}
"""File that identifies a folder -> its pictures. A run has plan.json and sections of its own; a file is a law."""

RUN = "plan.json"


def pictures_of(path: Path) -> list[Drawn] | None:
    """The pictures of a ladder, a check, a search, a law or scores; None of a run, which has sections of its own.

    Raises FileNotFoundError naming what is known, where a path is none of it.
    """
    if path.is_file():
        return law_pictures(path)
    for file, pictures in KINDS.items():
        if (path / file).exists():
            return pictures(path)
    if (path / RUN).exists():
        return None
    known = ", ".join((RUN, *KINDS))
    raise FileNotFoundError(f"{path} is no run, ladder, check, search, scores or law; a folder is known by its {known}")
