"""Published compute, losses and accuracies: what our formulas give again, and what the printed ones must add up to."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import least_squares

from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.plan.flops import training_flops
from cerebras_gpt.plan.laws import PUBLISHED_SP, PowerLaw
from cerebras_gpt.plan.plan import published_plan
from cerebras_gpt.plan.sizes import FAMILIES, SIZES, architecture

GOLDEN = Path(__file__).parent / "golden"
PUBLISHED, RESULTS, PILE = (
    json.loads((GOLDEN / f"{name}.json").read_text("utf-8")) for name in ("published", "results", "pile")
)
TRANSFER = PUBLISHED["transfer"]


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
