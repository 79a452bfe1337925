"""Every published figure of a recipe that a table of ours gives again."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy.stats import truncnorm

from cerebras_gpt.interop.gpt2 import gpt2_config
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.model.parametrization import TRUNCATION
from cerebras_gpt.plan import plan as planning
from cerebras_gpt.plan.families import mup, standard
from cerebras_gpt.plan.plan import overridden, published_plan, role_table
from cerebras_gpt.plan.sizes import FAMILIES, SIZES, architecture
from cerebras_gpt.train.optim import learning_rate, optimizer, set_learning_rate

PUBLISHED = json.loads((Path(__file__).parent / "golden" / "published.json").read_text("utf-8"))
COMMON, PROXY = PUBLISHED["common"], PUBLISHED["proxy"]
PLANS = [(name, family) for family, recipes in FAMILIES.items() for name in recipes]


@pytest.mark.parametrize("name", SIZES)
def test_every_shape_has_what_all_have_in_common(name):
    shape = architecture(name)
    for field in ("vocab_size", "seq_len", "ffn_multiple", "activation", "layer_norm_eps", "tied"):
        assert getattr(shape, field) == COMMON[field], field


@pytest.mark.parametrize("name", SIZES)
def test_the_parameters_outside_the_tables_are_the_published_rest(name):
    shape, published = architecture(name), PUBLISHED["sizes"][name]
    assert shape.n_parameters - shape.n_embedding_parameters == published["n_other_parameters"]


@pytest.mark.parametrize(("name", "family"), PLANS)
def test_the_optimizer_has_the_published_settings(name, family):
    plan = published_plan(name, family)
    assert list(plan.betas) == COMMON["betas"]
    for field in ("weight_decay", "grad_clip", "final_lr_fraction"):
        assert getattr(plan, field) == COMMON[field], field
    assert (COMMON["warmup_tokens"], COMMON["tokens_per_parameter"]) == (
        planning.WARMUP_TOKENS,
        planning.TOKENS_PER_PARAMETER,
    )


def test_nothing_drops_out():
    shape = Architecture(16, 1, 2, 32, 8)
    assert not [m for m in GPT(shape, standard(shape)).modules() if "dropout" in type(m).__name__.lower()]
    assert COMMON["dropout"] == 0


@torch.no_grad()
def test_weights_are_cut_at_two_stds_which_leaves_the_published_share():
    shape = Architecture(256, 1, 4, 4096, 64)
    model = initialize(GPT(shape, standard(shape)), torch.Generator().manual_seed(0))
    std, table = COMMON["init_std"], model.token_embedding.weight
    assert COMMON["truncation"] == TRUNCATION
    assert float(table.abs().max()) <= TRUNCATION * std
    assert truncnorm(-TRUNCATION, TRUNCATION).std() == pytest.approx(COMMON["realised_std"], abs=5e-5)
    assert float(table.std()) / std == pytest.approx(COMMON["realised_std"], rel=3e-3)


@pytest.mark.parametrize("name", SIZES)
def test_the_rule_or_the_released_file_gives_the_residual_std(name):
    released = {row.role: row.init_std for row in role_table(published_plan(name, "sp-yaml"))}
    assert released["residual_out"] == pytest.approx(PUBLISHED["sizes"][name]["residual_out_std"], abs=5e-8)
    assert released["hidden"] == released["embedding"] == COMMON["init_std"]
    rule = published_plan(name).parametrization.row("residual_out").init_std
    assert rule == pytest.approx(0.02 / math.sqrt(2 * SIZES[name].n_layers), rel=1e-12)
    assert (released["residual_out"] != pytest.approx(rule)) == (name in PUBLISHED["yaml"]["residual_out_std"])


@pytest.mark.parametrize("name", FAMILIES["mup"])
def test_mup_decays_as_the_paper_or_as_the_released_file_says(name):
    assert published_plan(name, "mup").decay == PUBLISHED["mup_common"]["decay"]
    assert published_plan(name, "mup-yaml").decay == PUBLISHED["yaml"]["mup_decay"][name]


@pytest.mark.parametrize(("name", "paper"), [pair for pair in PLANS if not pair[1].endswith("yaml")])
def test_paper_and_released_file_differ_in_nothing_else(name, paper):
    plan, released = published_plan(name, paper), published_plan(name, f"{paper}-yaml")
    power = released.parametrization.residual_init_power
    assert (
        replace(plan, decay=released.decay, parametrization=replace(plan.parametrization, residual_init_power=power))
        == released
    )


def test_the_two_phases_of_13b_are_plans_of_their_batch_sizes():
    shape, first, second = architecture("13B"), *(PUBLISHED["phases_13B"][key] for key in ("first", "second"))
    assert planning.optimal_steps(shape, first["batch_size"]) == first["whole_steps"]
    assert planning.warmup_steps(first["tokens_per_step"]) == first["warmup_steps"]
    assert first["warmup_steps"] + first["decay_steps"] == first["whole_steps"]
    plan = published_plan("13B")
    assert (plan.batch_size, plan.steps) == (second["batch_size"], second["to_step"])
    assert plan.steps - plan.warmup_steps == second["decay_steps"]


@pytest.mark.parametrize("name", SIZES)
def test_the_batch_is_that_of_all_systems(name):
    n_systems, sequences = PUBLISHED["systems"][name]
    assert n_systems * sequences == published_plan(name).batch_size


def test_known_errors_of_the_readme_are_not_ours():
    wrong = PUBLISHED["readme_errata"]
    shape = architecture("2.7B")
    assert wrong["2.7B"]["n_heads"] * wrong["2.7B"]["d_head"] == shape.d_model
    assert (shape.n_heads, shape.d_head) == (32, 80)
    assert published_plan("256M").warmup_steps == 693 != wrong["256M"]["warmup_steps"]
    assert {plan.decay for plan in map(published_plan, SIZES)} == {"linear", wrong["decay"]}


def test_what_the_readme_says_can_be_set_by_hand():
    heads = overridden(published_plan("2.7B"), {"architecture.n_heads": "20"})
    assert heads.architecture.d_head == heads.parametrization.d_head == 128
    assert overridden(published_plan("256M"), {"warmup_steps": "1500", "decay": "cosine"}).warmup_steps == 1500
    phase = {"batch_size": "720", "steps": "174335", "warmup_steps": "254"}
    assert overridden(published_plan("13B"), phase).tokens == pytest.approx(published_plan("13B").tokens, rel=1e-5)


def test_a_13b_of_ours_is_configured_as_the_hugging_face_release():
    ours = gpt2_config(architecture("13B"), end_of_text=50256)
    for key, value in PUBLISHED["hugging_face"].items():
        assert ours[key] == value, key


@pytest.mark.parametrize(("name", "family"), PLANS)
def test_the_rate_is_the_released_schedule_at_every_tenth(name, family):
    """Against the law of the released scheduler, s steps after the end of warm-up."""
    plan, published = published_plan(name, family), PUBLISHED["sizes"][name]
    peak, end = plan.peak_lr, 0.1 * plan.peak_lr
    assert learning_rate(plan, 0) == 0
    assert learning_rate(plan, published["warmup_steps"]) == pytest.approx(peak, rel=1e-12)
    assert learning_rate(plan, published["steps"]) == pytest.approx(end, rel=1e-12)
    for s in range(0, published["decay_steps"] + 1, published["decay_steps"] // 10):
        share = s / published["decay_steps"]
        shape = {"linear": 1 - share, "cosine": (1 + math.cos(math.pi * share)) / 2}[plan.decay]
        rate = learning_rate(plan, published["warmup_steps"] + s)
        assert rate == pytest.approx(end + (peak - end) * shape, rel=1e-12)


def test_mup_ends_at_the_published_rate():
    plan = published_plan("1.3B", "mup")
    assert learning_rate(plan, plan.steps) == pytest.approx(PUBLISHED["mup_common"]["final_lr"])


@pytest.mark.parametrize(("name", "family"), PLANS)
def test_the_optimizer_gives_every_role_its_published_peak(name, family):
    """On a thin model with the real table, through the optimizer's own groups."""
    plan = published_plan(name, family)
    shape = Architecture(32, 1, 2, 64, 16)
    adamw = optimizer(GPT(shape, plan.parametrization), plan)
    set_learning_rate(adamw, learning_rate(plan, plan.warmup_steps))
    size = PUBLISHED["sizes"][name]
    hidden = PUBLISHED["mup"][name]["hidden_lr"] if family.startswith("mup") else size["peak_lr"]
    top = PUBLISHED["mup_common"]["peak_lr"] if family.startswith("mup") else size["peak_lr"]
    rates = {group["lr"] for group in adamw.param_groups}
    assert min(rates) == pytest.approx(hidden, rel=1e-5)
    assert max(rates) == pytest.approx(top)
    assert {group["eps"] for group in adamw.param_groups} == {size["adam_eps"]}
    assert {group["weight_decay"] for group in adamw.param_groups} == {0.0, COMMON["weight_decay"]}


@pytest.mark.parametrize("depth", PROXY["n_parameters"])
def test_the_proxy_has_the_published_shape_at_either_depth(depth):
    shape = Architecture(PROXY["d_model"], int(depth), PROXY["n_heads"])
    assert (shape.d_head, shape.d_ffn, shape.n_parameters) == (64, 1024, PROXY["n_parameters"][depth])
    table = mup(shape)
    assert table.width_multiplier == PROXY["logit_scale"] == table.logit_scale
    assert table.row("hidden") == (PROXY["hidden_std"], 1.0, 1.0, 1.0)
    assert table.row("residual_out").init_std == pytest.approx(0.08 / math.sqrt(2 * int(depth)))
    assert table.attention_scale == 1 / PROXY["attention_divisor"]


def test_the_proxy_sees_the_published_tokens():
    assert PROXY["batch_size"] * COMMON["seq_len"] == PROXY["tokens_per_step"]
    assert PROXY["warmup_steps"] + PROXY["decay_steps"] == PROXY["steps"]
    assert PROXY["steps"] * PROXY["tokens_per_step"] == pytest.approx(PROXY["tokens"], rel=1e-4)
