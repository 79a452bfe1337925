"""Activations and their changes: flat over the width in muP, over depth too in CompleteP, and in SP they grow."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from cerebras_gpt.data.markov import MarkovBatches
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.plan.families import BASES, PARAMETRIZATIONS
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.train.activations import QUANTITIES, activations, attention_logits
from cerebras_gpt.train.coordinates import Size, measure, moments, shape_at, sizes, sweep
from cerebras_gpt.train.slopes import judged, power, slopes

SHAPE = Architecture(d_model=16, n_layers=2, n_heads=2, vocab_size=64, seq_len=16)


def table_of(name):
    base = replace(BASES[name], d_model=16, n_layers=2)
    return lambda shape: PARAMETRIZATIONS[name](shape, base)


def template(name):
    table = table_of(name)
    return Plan("check", SHAPE, table(SHAPE), 4, 5, 0, 0.01, final_lr_fraction=1.0)


def batches_of(plan, seed):
    return MarkovBatches(64, 16, plan.batch_size, seed)


def failing(name, axis, values, seeds):
    made = sweep(template(name), table_of(name), axis, values)
    rows = [row for run in measure(made, batches_of, seeds) for row in run]
    return [slope for slope in judged(slopes(axis, rows)) if not slope.holds]


@pytest.mark.parametrize("first_seed", [0, 100, 200])
def test_mup_holds_over_the_width_whatever_the_seeds(first_seed):
    assert not failing("mup", "width", (16, 32, 64, 128), range(first_seed, first_seed + 3))


@pytest.mark.parametrize("first_seed", [0, 100, 200])
def test_sp_does_not_hold_over_the_width_whatever_the_seeds(first_seed):
    broken = failing("sp", "width", (16, 32, 64), range(first_seed, first_seed + 2))
    grown = {slope.quantity for slope in broken if slope.step and slope.power > 0.5}
    assert {"attention write", "feed-forward write", "residual stream"} <= grown


def test_completep_holds_over_the_width():
    assert not failing("completep", "width", (32, 64, 128), range(4))


def test_completep_holds_over_depth():
    assert not failing("completep", "depth", (2, 4, 8, 16), range(3))


def test_mup_does_not_hold_over_depth():
    (stream,) = [s for s in failing("mup", "depth", (2, 4, 8, 16), range(2)) if s.quantity == "residual stream"]
    assert stream.power > 0.4
    assert str(stream).startswith("the change of residual stream grows with depth^0.")


def test_activations_are_those_of_the_network():
    plan = template("mup")
    model = initialize(GPT(plan.architecture, plan.parametrization), torch.Generator().manual_seed(0))
    ids = batches_of(plan, 0)[0].ids
    seen = activations(model, ids)
    assert tuple(seen) == QUANTITIES
    assert torch.equal(seen["logits"][0], model(ids))
    written = seen["embedding"][0] + seen["attention write"].sum(0) + seen["feed-forward write"].sum(0)
    assert torch.allclose(written, seen["residual stream"][0], atol=1e-5)
    assert seen["attention logits"].shape == (2, 4, 2, 16 * 17 // 2)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_attention_logits_are_the_scores_behind_the_softmax():
    qkv = torch.randn(1, 3, 3 * 8, generator=torch.Generator().manual_seed(0))
    logits = attention_logits(qkv, 1, 0.3)
    scores = torch.full((3, 3), float("-inf"))
    scores[torch.ones(3, 3, dtype=torch.bool).tril()] = logits[0, 0]
    q, k, v = qkv.split(8, -1)
    ours = scores.softmax(-1) @ v[0]
    assert torch.allclose(ours, F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3)[0], atol=1e-6)


def test_the_first_step_is_the_start_and_the_last_is_always_measured():
    assert moments(3) == [1, 2, 3]
    assert moments(12) == [1, 2, 5, 10, 12]
    rows = list(sizes(replace(template("mup"), steps=2), batches_of(template("mup"), 0), 0))
    assert [(quantity, step) for quantity, step, _ in rows] == [(q, s) for s in (0, 1, 2) for q in QUANTITIES]


@pytest.mark.parametrize(
    ("axis", "value", "shape"), [("width", 32, (32, 4, 2)), ("head", 16, (32, 2, 2)), ("depth", 5, (16, 2, 5))]
)
def test_one_side_of_the_shape_changes(axis, value, shape):
    made = shape_at(SHAPE, axis, value)
    assert (made.d_model, made.n_heads, made.n_layers) == shape


def test_a_width_that_heads_do_not_fill_is_refused():
    with pytest.raises(ValueError, match="width 20 is not a multiple of the head width 8"):
        shape_at(SHAPE, "width", 20)


def rows(powers):
    """Sizes that follow a power law, one power a seed."""
    return [
        Size("logits", step, x, seed, 3.0 * x**p)
        for step in (0, 1)
        for seed, p in enumerate(powers)
        for x in (8, 16, 64)
    ]


def test_a_slope_is_the_mean_over_seeds_with_its_standard_error():
    start, change = slopes("width", rows([0.2, 0.4]))
    assert (change.power, change.error) == (pytest.approx(0.3), pytest.approx(0.1))
    assert (start.lowest, change.lowest) == (-0.65, -0.15)
    assert change.holds  # 0.3 is within 0.15 and two standard errors
    assert not slopes("width", rows([0.3, 0.31]))[1].holds


def test_a_slope_that_nobody_knows_does_not_hold():
    noisy = slopes("width", rows([-0.4, 0.4]))[1]
    assert not noisy.holds
    assert str(noisy).endswith("known to +-0.80 only: give more seeds")


def test_a_start_may_shrink_where_nothing_is_aligned_yet_but_not_grow():
    assert slopes("width", rows([-0.5, -0.5]))[0].holds
    assert not slopes("width", rows([0.5, 0.5]))[0].holds


def test_zero_and_infinity_have_no_slope():
    assert power([1, 2], [0.0, 1.0]) != power([1, 2], [0.0, 1.0])
    broken = slopes("width", [row._replace(mean=float("inf")) for row in rows([0.1, 0.1])])[1]
    assert not broken.holds
    assert "not finite" in str(broken)


def test_one_seed_is_too_few():
    with pytest.raises(ValueError, match="2 seeds or more"):
        slopes("width", rows([0.1]))


def test_two_widths_are_too_few():
    with pytest.raises(ValueError, match="3 or more values"):
        sweep(template("mup"), table_of("mup"), "width", (16, 32, 32))
