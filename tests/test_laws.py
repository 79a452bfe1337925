import json
import math
from pathlib import Path

import pytest

from cerebras_gpt import config
from cerebras_gpt.plan.flops import training_flops
from cerebras_gpt.plan.laws import EPOCH, HOFFMANN, PARAMETRIC_LAWS, PUBLISHED_SP, PowerLaw, parametric_law
from cerebras_gpt.plan.plan import published_plan

PUBLISHED = json.loads((Path(__file__).parent / "golden" / "published.json").read_text("utf-8"))


def law_at(name: str) -> float:
    plan = published_plan(name)
    return PUBLISHED_SP.loss(training_flops(plan.architecture, plan.tokens, PUBLISHED_SP.formula))


def test_the_published_constants():
    for name, value in PUBLISHED["law"].items():
        assert getattr(PUBLISHED_SP, name) == value


@pytest.mark.parametrize("name", PUBLISHED["sizes"])
def test_the_published_law_passes_by_every_model_as_far_as_published(name):
    row = PUBLISHED["sizes"][name]
    assert law_at(name) == pytest.approx(row["law"], abs=2e-4)
    assert 100 * (row["loss"] / law_at(name) - 1) == pytest.approx(row["deviation_percent"], abs=0.02)


@pytest.mark.parametrize("name", PUBLISHED["mup"])
def test_mup_models_lie_below_the_published_law(name):
    row = PUBLISHED["mup"][name]
    assert 100 * (row["loss"] / law_at(name) - 1) == pytest.approx(row["deviation_percent"], abs=0.02)


def test_a_power_law_falls_to_its_irreducible_loss():
    law = PowerLaw(exponent=0.1, scale_flops=1e18, irreducible=0.5, formula="6nd")
    assert law.loss(1e18) == 1.5
    assert law.loss(1e18 * 2**10) == pytest.approx(1.0)


def test_the_optimum_has_the_least_loss_of_its_budget():
    for law in PARAMETRIC_LAWS.values():
        n, d = law.optimum(1e21)
        assert 6 * n * d == pytest.approx(1e21)
        assert all(law.loss(n * k, d / k) > law.loss(n, d) for k in (0.5, 0.9, 1.1, 2))


def test_tokens_for_a_loss_reach_it():
    n, d = EPOCH.optimum(1e21)
    assert EPOCH.tokens(EPOCH.loss(n, d), n) == pytest.approx(d)
    assert EPOCH.tokens(EPOCH.loss(n, d), n / 100) == math.inf


def test_the_fit_run_to_its_end_asks_for_about_twenty_tokens_a_parameter():
    n, d = EPOCH.optimum(5.76e23)  # the budget of Chinchilla
    assert 15 < d / n < 30
    assert parametric_law("epoch") is EPOCH
    with pytest.raises(ValueError, match="unknown parametric law 'epcoh'; did you mean 'epoch'"):
        parametric_law("epcoh")


@pytest.mark.parametrize("law", [PUBLISHED_SP, HOFFMANN])
def test_a_law_survives_its_mapping(law):
    assert config.from_mapping(type(law), config.to_mapping(law)) == law
