"""The search: points that extend each other, a choice among repeated finalists, an honest local fit."""

import math
from dataclasses import replace

import pytest

from cerebras_gpt.train.crew import Processes
from cerebras_gpt.train.execution import Execution
from cerebras_gpt.train.search import (
    N_FINALISTS,
    N_REPEATS,
    Finalist,
    Findings,
    Point,
    Proxy,
    Range,
    Sample,
    Search,
    Space,
    rises,
)
from cerebras_gpt.train.trial import Outcome, TrialRecord


@pytest.fixture(scope="module")
def proxy(tiny):
    return Proxy(replace(tiny, steps=6, warmup_steps=1))


def bowl(point):
    """A loss that is least at lr 0.01 and std 0.1, with known curvatures, and flat in the embedding scale."""
    lr, std = math.log2(point.peak_lr / 0.01), math.log2(point.init_std / 0.1)
    return 4.0 + 0.05 * lr**2 + 0.02 * std**2 + 0.01 * lr * std


def sampled(loss, n=64):
    return [Sample(point, Outcome(str(point), 0.0, loss(point), 1.0)) for point in Space().points(n, 0)]


@pytest.mark.parametrize("n", [1, 2, 7, 8, 33])
def test_more_samples_begin_with_the_same_ones(n):
    assert Space().points(n, 3) == Space().points(64, 3)[:n]


def test_points_fill_every_range_evenly_in_the_logarithm():
    space = Space()
    points = space.points(64, 1)
    for axis, range_ in space.axes().items():
        shares = [range_.share(getattr(point, axis)) for point in points]
        assert all(0 <= share <= 1 for share in shares)
        counts = [sum(i / 8 <= share < (i + 1) / 8 for share in shares) for i in range(8)]
        assert counts == [8] * 8  # a Sobol sequence is balanced
    assert space.points(4, 2) != points[:4]


def test_a_range_of_one_value_is_kept():
    points = Space(embedding_scale=Range(10.0, 10.0)).points(5, 0)
    assert {point.embedding_scale for point in points} == {10.0}


@pytest.mark.parametrize("range_", [Range(0.0, 1.0), Range(2.0, 1.0), Range(1.0, math.inf), Range(math.nan, 1.0)])
def test_what_is_no_range_is_refused(range_):
    with pytest.raises(ValueError, match=r"init_std from .* is no range"):
        Space(init_std=range_)


def test_no_samples_and_unknown_rules_are_refused(proxy):
    with pytest.raises(ValueError, match="0 samples find nothing"):
        Search(proxy, Space(), 0)
    with pytest.raises(ValueError, match="did you mean 'mup'"):
        Proxy(proxy.template, "mop")


def test_a_point_at_the_end_of_its_range_is_told():
    space = Space()
    assert space.edges(Point(space.peak_lr.high, 0.08, 31.9)) == ["peak_lr", "embedding_scale"]
    assert space.edges(Point(6e-3, 0.08, 10.0)) == []  # the published values lie well inside


@pytest.mark.parametrize("name", ["sp", "mup", "completep"])
def test_a_trial_of_the_proxy_has_multipliers_of_one(proxy, name):
    plan = replace(proxy, parametrization=name).trial(Point(0.01, 0.1, 5.0), 7).plan
    table = plan.parametrization
    assert (table.width_multiplier, table.depth_multiplier) == (1.0, 1.0)
    assert (plan.peak_lr, plan.seed, table.base_init_std, table.embedding_scale) == (0.01, 7, 0.1, 5.0)


def test_a_search_repeats_the_best_and_goes_on_from_its_record(proxy, data, tmp_path):
    record = tmp_path / "trials.jsonl"
    execution = Execution("float32", 4)
    first = Search(proxy, Space(), 6).run(data, record, Processes(1), execution)
    n_trials = 6 + N_FINALISTS * N_REPEATS
    assert len(TrialRecord(record).outcomes) == n_trials
    assert [sample.point for sample in first.samples] == Space().points(6, 0)
    assert first.best.mean == min(finalist.mean for finalist in first.finalists)
    assert all(len(finalist.held_out) == 1 + N_REPEATS for finalist in first.finalists)
    assert Search(proxy, Space(), 6).run(data, record, Processes(1), execution) == first
    assert len(TrialRecord(record).outcomes) == n_trials  # nothing was trained again


def test_noise_is_the_spread_between_seeds_and_not_between_points():
    point = Point(0.01, 0.1, 1.0)
    finalists = [Finalist(point, (1.0, 1.2)), Finalist(point, (5.0, 5.2))]
    assert Findings([], finalists, {}).noise == pytest.approx(math.sqrt(0.02))
    assert Findings([], [Finalist(point, (1.0,))], {}).noise == 0.0


def test_the_local_fit_finds_known_curvatures():
    found = rises(sampled(bowl), Point(0.01, 0.1, 1.0))
    assert found["peak_lr"] == pytest.approx(0.05) and found["init_std"] == pytest.approx(0.02)
    assert abs(found.get("embedding_scale", 0.0)) < 1e-9


def test_the_local_fit_says_nothing_of_what_it_cannot_know():
    best = Point(0.01, 0.1, 1.0)
    assert rises(sampled(bowl, 16), best) == {}
    assert "init_std" not in rises(sampled(lambda p: 4 - 0.02 * math.log2(p.init_std / 0.1) ** 2), best)
