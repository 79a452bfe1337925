import json
from pathlib import Path

import pytest

from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.plan.flops import FORMULAS, matmul_flops_per_token, training_flops
from cerebras_gpt.plan.sizes import SIZES, architecture

PUBLISHED = json.loads((Path(__file__).parent / "golden" / "published.json").read_text("utf-8"))


def tokens(name: str) -> int:
    row = PUBLISHED["sizes"][name]
    return row["steps"] * row["tokens_per_step"]


def digits(flops: float, n: int) -> str:
    return f"{flops:.{n - 1}e}".replace("e+", "e")


@pytest.mark.parametrize("name", SIZES)
def test_the_cerebras_formula_prints_the_results_tables(name):
    assert digits(training_flops(architecture(name), tokens(name)), 2) == PUBLISHED["sizes"][name]["flops_table"]


@pytest.mark.parametrize("name", [name for name in PUBLISHED["others"] if name != "OPT 13B"])
def test_the_cerebras_formula_prints_the_figures_of_other_families(name):
    row = PUBLISHED["others"][name]
    shape = Architecture(row["d_model"], row["n_layers"], row["n_heads"], row["vocab_size"], 2048)
    assert digits(training_flops(shape, row["tokens"]), 2) == row["flops_table"]


@pytest.mark.parametrize("name", [name for name in SIZES if name != "111M"])
def test_the_readme_formula_prints_the_training_table(name):
    flops = training_flops(architecture(name), tokens(name), "cerebras-readme")
    assert digits(flops, 2) == PUBLISHED["sizes"][name]["flops_readme"]


def test_the_readme_formula_misses_the_training_table_at_111m():
    assert PUBLISHED["sizes"]["111M"]["flops_readme"] == "2.5e18"
    assert digits(training_flops(architecture("111M"), tokens("111M"), "cerebras-readme"), 2) == "2.2e18"


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize(("formula", "column"), [("6nd", "flops_six_n"), ("standard", "flops_standard")])
def test_common_formulas_match_their_columns(name, formula, column):
    flops = training_flops(architecture(name), tokens(name), formula)
    assert flops == pytest.approx(float(PUBLISHED["sizes"][name][column]), rel=5e-4)


def test_an_unknown_formula_is_refused_with_its_neighbour():
    with pytest.raises(ValueError, match="unknown FLOP formula 'cerebra'; did you mean 'cerebras'"):
        training_flops(architecture("111M"), 1, "cerebra")


@pytest.mark.parametrize("formula", FORMULAS)
def test_flops_are_proportional_to_tokens(formula):
    shape = architecture("111M")
    assert training_flops(shape, 7, formula) == pytest.approx(7 * training_flops(shape, 1, formula))


@pytest.mark.parametrize(("seq_len", "millions"), [(512, 680), (2048, 751)])
def test_matmul_flops_per_token_at_111m(seq_len, millions):
    assert matmul_flops_per_token(architecture("111M", seq_len=seq_len)) == pytest.approx(millions * 1e6, rel=1e-3)


def test_matmul_flops_are_the_standard_ones_without_half_the_attention():
    shape = architecture("590M")
    half = 6 * shape.n_layers * shape.seq_len * shape.d_model
    assert matmul_flops_per_token(shape) + half == FORMULAS["standard"](shape)
