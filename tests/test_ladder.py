"""The ladder: its sizes, its prediction on disk before the last rung, its verdict, and going on after a kill."""

import json
import math
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from cerebras_gpt import ladder as module
from cerebras_gpt.cli import main
from cerebras_gpt.data.shards import Shards
from cerebras_gpt.ladder import (
    DESIGN,
    PICTURE,
    PREDICTION,
    RECORD,
    RUN,
    VERDICT,
    Design,
    Wish,
    begin,
    begun,
    climb,
    with_twin,
)
from cerebras_gpt.plan.ladder_law import Climbed, LadderLaw, Rung, compared, foretell, run_noise
from cerebras_gpt.plan.laws import PowerLaw
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.plan.rungs import DECADES, MOST_EPOCHS, N_SEEDS, WIDTH_STEP, Family, Limits, cost, ladder_widths
from cerebras_gpt.report.ladder_words import ladder_table
from cerebras_gpt.report.page import write_report
from cerebras_gpt.report.run import read_run
from cerebras_gpt.report.twin_figures import twin_figure, twin_words
from cerebras_gpt.train.crew import Processes
from cerebras_gpt.train.trial import outcome

TRUE = PowerLaw(exponent=0.15, scale_flops=1e12, irreducible=1.0, formula="cerebras", unit="bits per byte")
COMPUTES = [2e10 * 4.2**i for i in range(6)]


@pytest.fixture(scope="module")
def design(data):
    """Five sizes that train in a few seconds."""
    family = Family("mup", module.SMALL_BASE, module.SMALL_PEAK_LR, 288, seq_len=16, tokens_per_parameter=0.5)
    fingerprint = Shards.open(data, "train").fingerprint
    return Design(family, (8, 16, 24, 32, 40), 0, fingerprint, Wish().words())


@pytest.fixture(scope="module")
def climbed(design, data, tmp_path_factory):
    """A whole ladder that nothing interrupted, and its folder."""
    out = tmp_path_factory.mktemp("ladder") / "out"
    begin(design, out)
    return climb(design, data, out, workers=Processes(1)), out


def rung(flops, bits):
    return Rung(f"C {flops:.2g}", 8, 1000, 20000, flops, tuple(bits))


def noisy(seed, noise=0.003, n_seeds=N_SEEDS, computes=COMPUTES):
    draw = np.random.default_rng(seed)
    return [rung(c, TRUE.loss(c) * (1 + noise * draw.standard_normal(n_seeds))) for c in computes]


def test_a_ladder_fills_its_time_and_spans_its_decades():
    family = Family("mup", module.SMALL_BASE, 0.03, 512)
    limits = Limits(1500, 50_000_000, 500_000)
    widths = ladder_widths(family, 6, limits, lambda width: 6e6 / width)
    needs = cost(family, widths, limits, lambda width: 6e6 / width)
    assert 0.6 * limits.seconds < needs.seconds <= limits.seconds
    assert needs.epochs <= MOST_EPOCHS
    flops = [family.flops(width) for width in widths]
    assert math.log10(flops[-2] / flops[0]) >= DECADES
    steps = np.log([b / a for a, b in pairwise(flops)])
    assert steps.std() < 0.2 * steps.mean()
    for width in widths:
        plan = family.plan(width)
        assert plan.tokens_per_parameter == pytest.approx(20, rel=0.01)
        assert plan.steps >= 150


def test_little_text_makes_a_small_ladder():
    family = Family("mup", module.SMALL_BASE, 0.03, 512)
    many, few = (ladder_widths(family, 6, Limits(1e9, n, 0), lambda _: 1e6) for n in (10**7, 4 * 10**6))
    assert few[-1] < many[-1]
    assert family.plan(few[-1]).tokens <= MOST_EPOCHS * 4e6 < family.plan(few[-1] + WIDTH_STEP).tokens * 1.1


@pytest.mark.parametrize(
    ("n_rungs", "limits", "words"),
    [
        (6, Limits(1.0, 10**8, 0), "takes .* minutes here.*give --minutes"),
        (6, Limits(3600, 10**4, 0), "needs .* training tokens.*pack more text"),
        (400, Limits(3600, 10**8, 0), "too close together"),
    ],
)
def test_what_cannot_be_is_refused_with_what_could(n_rungs, limits, words):
    with pytest.raises(ValueError, match=words):
        ladder_widths(Family("mup", module.SMALL_BASE, 0.03, 512), n_rungs, limits, lambda _: 1e5)


def test_a_noiseless_ladder_is_predicted_exactly():
    *known, last = [rung(c, [TRUE.loss(c)] * 3) for c in COMPUTES]
    told = foretell(known, 8, last.flops)
    assert told.bits_per_byte == pytest.approx(last.mean, rel=1e-6)
    assert told.low <= last.mean * (1 + 1e-9) and told.high >= last.mean * (1 - 1e-9)


def test_the_interval_holds_nine_of_ten_single_runs():
    inside, n = 0, 150
    for seed in range(n):
        *known, last = noisy(seed)
        told = foretell(known, 8, last.flops)
        inside += told.low <= last.bits_per_byte[0] <= told.high
    assert 0.85 * n <= inside  # more than stated is no harm: it guards against luck in the scatter


def test_the_noise_of_one_run_is_that_of_the_seeds():
    noise, freedom = run_noise(noisy(0, noise=0.004, computes=COMPUTES * 20))
    assert noise == pytest.approx(0.004, rel=0.15)
    assert freedom == 20 * len(COMPUTES) * (N_SEEDS - 1)


def test_a_law_that_fits_by_luck_has_no_narrower_interval_than_its_seeds_allow():
    lucky = [rung(c, TRUE.loss(c) * np.array([0.995, 1.0, 1.005])) for c in COMPUTES]
    low, high = LadderLaw(tuple(lucky[:-1])).interval(COMPUTES[-1])
    assert (high - low) / 2 > 0.005 * TRUE.loss(COMPUTES[-1]) * 1.8


def test_a_diverged_rung_is_named():
    bad = [*noisy(0)[:4], replace(rung(1e13, [math.inf]), name="width 77")]
    with pytest.raises(ValueError, match="width 77 diverged"):
        foretell(bad, 8, 1e14)


def test_a_verdict_is_the_error_and_the_side_of_the_interval():
    *known, last = noisy(1)
    told = replace(foretell(known, 8, last.flops), bits_per_byte=2.0, low=1.9, high=2.1)
    better, worse = (Climbed(told, rung(last.flops, [bits])) for bits in (1.95, 2.2))
    assert better.error == pytest.approx(-0.025) and better.is_inside
    assert worse.error == pytest.approx(0.1) and not worse.is_inside
    assert "inside the interval, error -2.50 %" in ladder_table(better)
    assert "outside the interval, error +10.00 %" in ladder_table(worse)


def test_a_twin_is_compared_with_its_own_law():
    own = [rung(c, [TRUE.loss(c)]) for c in COMPUTES]
    other = [rung(c, [1.01 * TRUE.loss(c) * (1 + 0.01 * (-1) ** i)]) for i, c in enumerate(COMPUTES)]
    found = compared(own, other)
    assert found.difference == pytest.approx(-0.01, abs=2e-3)
    assert found.about_twin_law == pytest.approx(-0.01, abs=5e-3)
    assert found.twin_spread > 0.005 > found.spread


def interrupted(folder, out, n_lines):
    """A copy of a ladder as a kill leaves it after so many rungs, the next line torn."""
    for name in (DESIGN, "calibration.json"):
        (out / name).write_text((folder / name).read_text())
    lines = (folder / RECORD).read_text().splitlines(keepends=True)
    (out / RECORD).write_text("".join(lines[:n_lines]) + '{"key": "to' * (n_lines < len(lines)))
    return out


def test_the_prediction_is_on_disk_before_the_last_rung_is_trained(design, data, climbed, tmp_path, monkeypatch):
    def killed(plan, data, run, world):
        told = json.loads((tmp_path / PREDICTION).read_text())
        assert plan.prediction.bits_per_byte == told["bits_per_byte"]
        assert not (run / "metrics.jsonl").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "pretrain", killed)
    with pytest.raises(KeyboardInterrupt):
        climb(design, data, interrupted(climbed[1], tmp_path, 12), workers=Processes(1))
    assert not (tmp_path / VERDICT).exists()


def test_a_killed_ladder_ends_like_an_uninterrupted_one(design, data, climbed, tmp_path):
    whole, folder = climbed
    out = interrupted(folder, tmp_path, 10)
    assert climb(begun(Wish(), data, out), data, out, workers=Processes(1)) == whole
    assert (out / PREDICTION).read_text() == (folder / PREDICTION).read_text()
    before = (out / PREDICTION).stat().st_mtime_ns
    assert climb(design, data, out, workers=Processes(1)) == whole
    assert (out / PREDICTION).stat().st_mtime_ns == before


def test_the_last_rung_is_a_run_with_a_verdict_of_its_own(climbed):
    whole, folder = climbed
    run = read_run(folder / RUN)
    assert run.is_finished
    assert run.verdict == ("inside" if whole.is_inside else "better" if whole.error < 0 else "worse")
    assert json.loads((folder / VERDICT).read_text())["measured"] == run.bits_per_byte == whole.last.mean
    assert (folder / PICTURE).read_bytes().startswith(b"\x89PNG")


def test_rungs_and_the_predicted_run_are_scored_alike(design, data, climbed):
    plan = Plan.load(climbed[1] / RUN)
    trial = design.trials(design.family, [plan.architecture.d_model], 1)[0]
    execution = module.calibrated(plan, climbed[1], module.Stopwatch(0.1)).execution
    [again] = module.rungs_of([trial], [outcome(trial, data, execution)], data)
    assert again.mean == pytest.approx(climbed[0].last.mean, rel=1e-3)


def test_a_twin_has_the_same_sizes_and_tokens(design, data, climbed):
    whole, folder = climbed
    both = with_twin(whole, design, data, folder, workers=Processes(1))
    assert [(r.d_model, r.n_tokens, r.flops) for r in both.twin] == [
        (r.d_model, r.n_tokens, r.flops) for r in whole.rungs
    ]
    assert "against SP" in ladder_table(both)
    page = write_report([folder], folder.parent / "ladder.html").read_text("utf-8")
    assert page.count("<svg") == 2 * 3  # the ladder, both families, training and use
    assert "under muP and SP, each with its own law" in page


def test_a_family_is_drawn_beside_its_twin_about_the_law_of_the_twin():
    twin = [rung(c, [TRUE.loss(c)] * 2) for c in COMPUTES]
    better = [rung(c, [0.99 * TRUE.loss(c)] * 2) for c in COMPUTES]
    _, below = twin_figure(better, twin, "muP").axes
    law, models, flat, own = (line.get_ydata() for line in below.lines)
    assert models == pytest.approx(-1, abs=1e-2) and law == pytest.approx(-1, abs=0.05)
    assert flat == pytest.approx(0, abs=1e-9) and own == pytest.approx(0, abs=1e-3)
    assert "is 1.00 % lower on average" in twin_words(better, twin, "muP")


def test_another_wish_is_refused_in_the_same_folder(design, data, tmp_path):
    begin(design, tmp_path)
    assert begun(Wish(), data, tmp_path) == design
    with pytest.raises(ValueError, match="another minutes, seed"):
        begun(Wish(minutes=5, seed=1), data, tmp_path)
    with pytest.raises(ValueError, match="started on other data"):
        climb(replace(design, data_fingerprint="other"), data, tmp_path, 1)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--minutes", "-1"], "not a time to train"),
        (["--minutes", "nan"], "not a time to train"),
        (["--twin", "mup"], "the only twin is sp"),
        (["--rungs", "2"], "too few for a law"),
        (["--parametrization", "mvp"], "unknown parametrization"),
        (["--parametrization", "sp"], "learning rate of its own"),
        (["--tuned", "nowhere.json"], "no tuned point at"),
    ],
)
def test_nonsense_gets_one_line(words, line, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cerebras-gpt", "ladder", "--data", str(data), "--out", str(tmp_path), *words])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().err.strip()
    assert end.value.code == 2 and line in said and said.count("\n") == 0
