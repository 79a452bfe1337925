"""Every published figure that a table of ours gives again, and sums that the printed ones must have."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from scipy.stats import truncnorm

from cerebras_gpt.interop.gpt2 import gpt2_config
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.model.parametrization import TRUNCATION
from cerebras_gpt.plan.families import mup, standard
from cerebras_gpt.plan.flops import training_flops
from cerebras_gpt.plan.laws import PUBLISHED_SP, PowerLaw
from cerebras_gpt.plan.plan import (
    TOKENS_PER_PARAMETER,
    WARMUP_TOKENS,
    optimal_steps,
    overridden,
    published_plan,
    role_table,
)
from cerebras_gpt.plan.plan import warmup_steps as steps_of_warmup
from cerebras_gpt.plan.sizes import FAMILIES, SIZES, architecture
from cerebras_gpt.train.optim import learning_rate, optimizer, set_learning_rate

GOLDEN = Path(__file__).parent / "golden"
PUBLISHED, RESULTS, PILE = (
    json.loads((GOLDEN / f"{name}.json").read_text("utf-8")) for name in ("published", "results", "pile")
)
COMMON, PROXY, TRANSFER = PUBLISHED["common"], PUBLISHED["proxy"], PUBLISHED["transfer"]
PLANS = [(name, family) for family, recipes in FAMILIES.items() for name in recipes]


def deviation(loss: float, flops: float) -> float:
    """Percent of a loss above the published law."""
    return 100 * (loss / PUBLISHED_SP.loss(flops) - 1)


def flops(name: str) -> float:
    return training_flops(architecture(name), published_plan(name).tokens)


def fitted(names: list[str], losses: list[float]) -> PowerLaw:
    """The power law of least relative residuals."""
    compute, loss = np.array([flops(name) for name in names]), np.array(losses)

    def residuals(constants: np.ndarray) -> np.ndarray:
        exponent, log_scale, irreducible = constants
        return ((compute / np.exp(log_scale)) ** -exponent + irreducible) / loss - 1

    found = least_squares(residuals, [0.07, 52.0, 0.5], x_scale=[0.01, 1, 0.1], xtol=1e-14, ftol=1e-14, gtol=1e-14)
    return PowerLaw(found.x[0], math.exp(found.x[1]), found.x[2], "cerebras")


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
    assert (COMMON["warmup_tokens"], COMMON["tokens_per_parameter"]) == (WARMUP_TOKENS, TOKENS_PER_PARAMETER)


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
    assert optimal_steps(shape, first["batch_size"]) == first["whole_steps"]
    assert steps_of_warmup(first["tokens_per_step"]) == first["warmup_steps"]
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


def test_22_of_23_printed_figures_of_compute_follow_from_one_formula():
    printed = {name: (flops(name), row["flops_table"]) for name, row in PUBLISHED["sizes"].items()}
    for name, row in PUBLISHED["others"].items():
        shape = Architecture(row["d_model"], row["n_layers"], row["n_heads"], row["vocab_size"], 2048)
        printed[name] = (training_flops(shape, row["tokens"]), row["flops_table"])
    wrong = {name for name, (ours, theirs) in printed.items() if f"{ours:.1e}".replace("e+", "e") != theirs}
    assert len(printed) == 23
    assert wrong == {"OPT 13B"}
    assert printed["OPT 13B"][0] == pytest.approx(2.645e22, rel=1e-3)  # printed as 2.7e22


@pytest.mark.parametrize("formula", PUBLISHED["ratios_to_six_n"])
def test_formulas_exceed_six_n_as_stated(formula):
    ratios = [
        training_flops(architecture(name), 1, formula) / training_flops(architecture(name), 1, "6nd")
        for name in ("111M", "13B")
    ]
    assert ratios == pytest.approx(PUBLISHED["ratios_to_six_n"][formula], abs=0.005)


@pytest.mark.parametrize("name", [name for name, row in PUBLISHED["others"].items() if "loss" in row])
def test_other_families_lie_above_the_law_as_far_as_stated(name):
    row = PUBLISHED["others"][name]
    shape = Architecture(row["d_model"], row["n_layers"], row["n_heads"], row["vocab_size"], 2048)
    above = deviation(row["loss"], training_flops(shape, row["tokens"]))
    assert above == pytest.approx(row["deviation_percent"], abs=0.06)


def test_pythia_12b_saw_as_many_tokens_per_parameter_as_stated():
    row = PUBLISHED["others"]["Pythia 12B"]
    shape = Architecture(row["d_model"], row["n_layers"], row["n_heads"], vocab_size=50688, tied=False)
    n_parameters = shape.n_parameters - shape.seq_len * shape.d_model  # rotary positions have no table
    ratio = row["tokens"] / n_parameters
    assert ratio == pytest.approx(TRANSFER["pythia_12b_tokens_per_parameter"], abs=0.05)


def test_the_stated_gain_of_mup_is_its_mean_distance_from_the_law():
    mean = np.mean([deviation(row["loss"], flops(name)) for name, row in PUBLISHED["mup"].items()])
    assert mean == pytest.approx(TRANSFER["mup_mean_deviation"], abs=0.005)


def test_the_stated_spread_of_the_standard_runs_is_about_the_law_at_the_printed_flops():
    rows = PUBLISHED["sizes"].values()
    printed = [deviation(row["loss"], float(row["flops_table"])) for row in rows]
    exact = [deviation(row["loss"], flops(name)) for name, row in PUBLISHED["sizes"].items()]
    assert np.std(printed) == pytest.approx(TRANSFER["sp_residual_std"], abs=0.005)
    assert np.std(exact) == pytest.approx(0.71, abs=0.005)
    assert abs(printed[-1]) < TRANSFER["deviation_13B"] < abs(exact[-1])


def test_the_stated_spread_of_the_mup_runs_is_about_their_own_law():
    names, losses = list(PUBLISHED["mup"]), [row["loss"] for row in PUBLISHED["mup"].values()]
    law = fitted(names, losses)
    residuals = [100 * (loss / law.loss(flops(name)) - 1) for name, loss in zip(names, losses, strict=True)]
    assert np.std(residuals) == pytest.approx(TRANSFER["mup_residual_std"], abs=0.005)
    for field, value in PUBLISHED["mup_law"].items():
        assert getattr(law, field) == pytest.approx(value, rel=5e-3)


def test_the_published_constants_fit_the_printed_losses_as_well_as_any():
    names, losses = list(SIZES), [row["loss"] for row in PUBLISHED["sizes"].values()]
    best = fitted(names, losses)
    spread = [
        np.sqrt(np.mean([(loss / law.loss(flops(name)) - 1) ** 2 for name, loss in zip(names, losses, strict=True)]))
        for law in (best, PUBLISHED_SP)
    ]
    assert spread[0] <= spread[1] < 1.01 * spread[0]


@pytest.mark.parametrize("table", ["zero_shot", "five_shot"])
def test_every_printed_mean_is_that_of_the_seven_tasks(table):
    for name, row in RESULTS[table].items():
        assert len(row["accuracy"]) == len(RESULTS["tasks"]) == 7
        assert np.mean(row["accuracy"]) == pytest.approx(row["mean"], abs=6e-4), name


def test_the_tables_of_results_agree_with_those_of_the_models():
    rows = {f"SP {name}": row for name, row in PUBLISHED["sizes"].items()}
    rows |= {f"muP {name}": PUBLISHED["sizes"][name] | row for name, row in PUBLISHED["mup"].items()}
    for name, row in (rows | PUBLISHED["others"]).items():
        printed = RESULTS["zero_shot"][name]
        assert (row["flops_table"], row.get("loss")) == (printed["flops"], printed["loss"]), name


def test_the_stated_downstream_gain_of_mup_is_the_mean_over_the_sizes():
    means = RESULTS["zero_shot"]
    gains = [100 * (means[f"muP {name}"]["mean"] / means[f"SP {name}"]["mean"] - 1) for name in FAMILIES["mup"]]
    assert np.mean(gains) == pytest.approx(TRANSFER["mup_downstream_gain"], abs=0.1)


def test_the_cards_print_other_losses_at_five_sizes():
    readme = {name: row["loss"] for name, row in PUBLISHED["sizes"].items()}
    assert [name for name in readme if readme[name] == RESULTS["card_loss"][name]] == ["2.7B", "6.7B"]


def test_a_suspect_loss_is_kept_as_printed():
    for name, loss in RESULTS["suspect"].items():
        assert RESULTS["zero_shot"][name]["loss"] == loss > RESULTS["zero_shot"]["Pythia-dedup 1B"]["loss"]


def test_the_pile_adds_up():
    raw, weight, epochs, effective, _ = np.array(list(PILE["components"].values())).T
    assert len(PILE["components"]) == 22
    assert raw.sum() == pytest.approx(PILE["totals"]["raw_gib"], abs=1)
    assert weight.sum() == pytest.approx(100, abs=0.1)
    assert effective.sum() == pytest.approx(PILE["totals"]["effective_gib"], abs=0.1)
    assert raw * epochs == pytest.approx(effective, abs=0.03)
    assert 100 * effective / effective.sum() == pytest.approx(weight, abs=0.01)


def test_no_published_run_repeats_the_pile():
    assert max(published_plan(name).tokens for name in SIZES) < PILE["tokens"]
