"""Our network is GPT-2: the same logits, gradients and training as transformers' on shared weights."""

import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from cerebras_gpt.plan.sizes import FAMILIES, SIZES

PARITY = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "parity.py"))
miniature = PARITY["miniature"]
VARIANTS = {
    "gelu_new": {"activation": "gelu_new"},
    "relu": {"activation": "relu"},
    "untied": {"tied": False},
    "narrow_feed_forward": {"ffn_multiple": 2.5},
    "another_epsilon": {"layer_norm_eps": 0.1},
    "longer_than_a_block_of_attention": {"seq_len": 150},
}


def assert_equal_to_rounding(found):
    assert found["logits"] <= 1e-5
    assert found["loss"] <= 1e-6
    assert found["gradients"] <= 1e-5, found["worst_gradient"]


@pytest.mark.parametrize("name", SIZES)
def test_every_shape_has_the_logits_and_gradients_of_gpt2(name):
    shape = miniature(name)
    found = PARITY["compare"](shape)
    assert_equal_to_rounding(found)
    assert found["tensors"] == 12 * shape.n_layers + 4


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_the_logits_and_gradients_of_gpt2(variant):
    assert_equal_to_rounding(PARITY["compare"](replace(miniature("111M"), **VARIANTS[variant])))


@pytest.mark.parametrize("activation", ["gelu_new", "relu"])
def test_another_activation_would_be_noticed(activation):
    ours = PARITY["lively"](PARITY["GPT"](shape := miniature("111M"), PARITY["standard"](shape)))
    other = PARITY["theirs"](ours)
    wrong = PARITY["GPT"](replace(shape, activation=activation), ours.parametrization)
    wrong.load_state_dict(ours.state_dict())
    ids = PARITY["batch_of"](shape, 2).ids
    reference = other(input_ids=ids).logits
    assert PARITY["relative"](ours(ids), reference) < 1e-5 < PARITY["relative"](wrong(ids), reference)


@pytest.mark.parametrize("name", FAMILIES["mup"])
def test_a_folded_mup_model_has_the_logits_of_gpt2(name):
    assert PARITY["compare_folded"](name) <= 1e-5


def test_a_hundred_steps_of_training_keep_step_with_torch_and_transformers():
    found = PARITY["lockstep"](PARITY["small_run"]())
    first, last = found["first_and_last_loss"]
    assert found["steps"] == 100 and last < 0.7 * first
    assert found["losses"] <= 1e-4
    assert found["weights"] <= 1e-3, found["worst_weight"]
