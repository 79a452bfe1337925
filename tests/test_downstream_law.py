import numpy as np
import pytest

from cerebras_gpt.plan.downstream_law import Result, Sigmoid, fit_downstream, fit_sigmoid
from cerebras_gpt.plan.laws import PowerLaw

LAW = PowerLaw(exponent=0.12, scale_flops=1e18, irreducible=0.6, formula="cerebras")
CURVE = Sigmoid(chance=0.25, steepness=3.0, middle=1.1)
FLOPS = np.geomspace(1e15, 1e20, 7)


def runs(seed=None, stderr=0.01):
    """Runs of known constants, their accuracies with or without the noise of a finite test."""
    draw = np.random.default_rng(seed)
    losses = np.array([LAW.loss(flops) for flops in FLOPS])
    scores = CURVE.accuracy(losses) + (0 if seed is None else stderr * draw.standard_normal(len(FLOPS)))
    return [Result(*row, stderr) for row in zip(FLOPS, losses, scores, strict=True)]


def test_known_constants_come_back():
    made = fit_downstream(runs(), chance=0.25)
    assert made.losses.law.exponent == pytest.approx(0.12, rel=1e-3)
    assert made.losses.law.irreducible == pytest.approx(0.6, rel=1e-2)
    assert made.sigmoid.steepness == pytest.approx(3.0, rel=1e-3)
    assert made.sigmoid.middle == pytest.approx(1.1, rel=1e-3)


def test_the_next_size_is_predicted_inside_the_interval():
    truth = float(CURVE.accuracy(np.array([LAW.loss(1e21)]))[0])
    inside = 0
    for seed in range(10):
        told = fit_downstream(runs(seed), chance=0.25).accuracy(1e21)
        assert told.low <= told.value <= told.high
        inside += told.low <= truth <= told.high
    assert inside >= 7


def test_a_sigmoid_lies_between_chance_and_one():
    found = fit_sigmoid(np.array([3.0, 2.5, 2.0, 1.5]), np.array([0.24, 0.26, 0.25, 0.27]), np.full(4, 0.02), 0.25)
    values = found.accuracy(np.linspace(-100, 100, 50))
    assert values.min() >= 0.25 - 1e-9 and values.max() <= 1


def test_too_few_runs_are_refused():
    with pytest.raises(ValueError, match="at least 4 finished runs, 3 given"):
        fit_downstream(runs()[:3], chance=0.25)


def test_task_losses_that_rise_with_compute_are_refused():
    rising = [one._replace(task_loss=1 / one.task_loss) for one in runs()]
    with pytest.raises(ValueError, match="do not fall with compute"):
        fit_downstream(rising, chance=0.25)
