import json
from dataclasses import replace
from pathlib import Path

import pytest

from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.plan.families import Base, completep, standard
from cerebras_gpt.plan.plan import Plan, Prediction, describe, overridden, published_plan, role_table
from cerebras_gpt.plan.sizes import FAMILIES

PUBLISHED = json.loads((Path(__file__).parent / "golden" / "published.json").read_text("utf-8"))
PLANS = [(name, family) for family, recipes in FAMILIES.items() for name in recipes]
SHAPE = Architecture(64, 2, 2, vocab_size=99, seq_len=16)
SMALL = Plan("small", SHAPE, standard(SHAPE), batch_size=4, steps=10, warmup_steps=2, peak_lr=1e-3)


@pytest.mark.parametrize(("name", "family"), PLANS)
def test_the_schedule_matches_the_release(name, family):
    plan, published = published_plan(name, family), PUBLISHED["sizes"][name]
    for field in ("batch_size", "tokens_per_step", "warmup_steps", "steps", "adam_eps"):
        assert getattr(plan, field) == published[field], field
    assert plan.steps - plan.warmup_steps == published["decay_steps"]
    assert plan.tokens == pytest.approx(published["tokens"], rel=1e-4)
    assert plan.tokens_per_parameter == pytest.approx(20, rel=1e-3)
    assert plan.final_lr_fraction == 0.1


@pytest.mark.parametrize("name", FAMILIES["sp"])
def test_standard_learning_rates_match_the_release(name):
    plan, published = published_plan(name), PUBLISHED["sizes"][name]
    assert {row.peak_lr for row in role_table(plan)} == {published["peak_lr"]}
    assert plan.decay == published["decay"]


@pytest.mark.parametrize("name", FAMILIES["mup"])
def test_mup_learning_rates_and_stds_match_the_release(name):
    published, common = PUBLISHED["mup"][name], PUBLISHED["mup_common"]
    rows = {row.role: row for row in role_table(published_plan(name, "mup"))}
    assert rows["hidden"].peak_lr == rows["residual_out"].peak_lr == pytest.approx(published["hidden_lr"], rel=1e-5)
    assert rows["embedding"].peak_lr == rows["bias"].peak_lr == rows["norm"].peak_lr == common["peak_lr"]
    assert rows["hidden"].init_std == pytest.approx(published["hidden_std"], rel=1e-4)
    assert rows["residual_out"].init_std == pytest.approx(published["residual_out_std"], rel=1e-4)
    assert rows["embedding"].init_std == common["init_std"]


def test_weights_decay_and_biases_and_norms_do_not():
    decays = {row.role: bool(row.weight_decay) for row in role_table(published_plan("111M", "mup"))}
    assert decays == {"embedding": True, "hidden": True, "residual_out": True, "bias": False, "norm": False}


def test_13b_takes_as_many_tokens_as_its_two_published_phases():
    first, second = PUBLISHED["phases_13B"]["first"], PUBLISHED["phases_13B"]["second"]
    tokens = first["steps_run"] * first["tokens_per_step"]
    assert tokens == second["from_step"] * second["tokens_per_step"]
    tokens += (second["to_step"] - second["from_step"]) * second["tokens_per_step"]
    assert published_plan("13B").tokens == tokens
    assert any("720 sequences" in reason for reason in published_plan("13B").reasons)


def test_a_note_stays_with_the_family_it_is_about():
    assert any("0.0025" in reason for reason in published_plan("1.3B").reasons)
    assert not any("0.0025" in reason for reason in published_plan("1.3B", "mup").reasons)


def test_another_vocabulary_and_length_keep_batch_and_ratio():
    plan = published_plan("111M", "mup", vocab_size=8192, seq_len=512)
    assert plan.tokens_per_step == 245_760
    assert plan.tokens_per_parameter == pytest.approx(20, rel=1e-3)
    assert plan.architecture.vocab_size == 8192


@pytest.mark.parametrize(
    ("name", "family", "message"),
    [
        ("112M", "sp", "unknown size '112M'; did you mean '111M'"),
        ("13B", "mup", "unknown size '13B'; did you mean '1.3B'. allowed: 111M, 256M, 590M, 1.3B, 2.7B$"),
        ("111M", "nup", "unknown family 'nup'; did you mean 'mup'"),
    ],
)
def test_an_unknown_plan_is_refused(name, family, message):
    with pytest.raises(ValueError, match=message):
        published_plan(name, family)


@pytest.mark.parametrize(("name", "family"), PLANS)
def test_a_plan_survives_its_json(name, family, tmp_path):
    plan = published_plan(name, family)
    (tmp_path / "plan.json").write_text(plan.to_json(), "utf-8")
    assert Plan.from_json(plan.to_json()) == Plan.load(tmp_path) == Plan.load(tmp_path / "plan.json") == plan


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"name": 1}', '{"stepz": 1}'])
def test_a_file_that_is_no_plan_is_named(text, tmp_path):
    (tmp_path / "plan.json").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=r"plan\.json is not a plan: "):
        Plan.load(tmp_path)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"batch_size": "0"}, "batch_size is 0; it must be at least 1"),
        ({"steps": "0"}, "steps is 0; it must be at least 1"),
        ({"steps": "1"}, "warmup_steps is 2; choose 0 to 1"),
        ({"warmup_steps": "-1"}, "warmup_steps is -1; choose 0 to 10"),
        ({"peak_lr": "0"}, "peak_lr is 0.0; it must be positive"),
        ({"peak_lr": "NaN"}, "peak_lr is nan; it must be positive"),
        ({"peak_lrr": "1"}, "unknown plan key 'peak_lrr'; did you mean 'peak_lr'"),
        ({"architecture.n_layer": "1"}, "unknown architecture key 'n_layer'; did you mean 'n_layers'"),
        ({"decay": "sine"}, "plan key 'decay' is 'sine': input should be 'linear' or 'cosine'"),
        (
            {"parametrization.n_layers": "3"},
            "the parametrization is for 3 layers and heads of 32, the architecture has 2",
        ),
    ],
)
def test_an_impossible_setting_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        overridden(SMALL, setting)


def test_no_settings_leave_the_plan_as_it_is():
    plan = overridden(SMALL, {"prediction": '{"law": "a", "bits_per_byte": 1.5, "low": 1.4, "high": 1.6}'})
    assert overridden(plan, {}) == plan


def test_settings_replace_values_and_say_so():
    plan = overridden(SMALL, {"peak_lr": "0.01", "betas": "[0.9, 0.99]", "decay": "cosine", "steps": "1e2"})
    assert (plan.peak_lr, plan.betas, plan.decay, plan.steps) == (0.01, (0.9, 0.99), "cosine", 100)
    assert plan.reasons[-1] == "steps = 1e2: set by hand"


def test_a_setting_drops_the_prediction():
    prediction = Prediction("a", 1.5, 1.4, 1.6)
    plan = Plan("a", SHAPE, standard(SHAPE), 4, 10, 2, 1e-3, prediction=prediction)
    assert overridden(plan, {"peak_lr": "0.1"}).prediction is None


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parametrization_follows_depth_and_heads(family):
    settings = {"architecture.n_layers": "4", "architecture.n_heads": "6"}
    plan = overridden(published_plan("111M", family), settings)
    assert plan.parametrization == FAMILIES[family]["111M"].parametrization(plan.architecture)


def test_another_width_asks_for_its_multiplier():
    plan, multiplier = published_plan("111M", "mup"), "parametrization.width_multiplier"
    with pytest.raises(ValueError, match=f"also needs {multiplier}"):
        overridden(plan, {"architecture.d_model": "1536"})
    wide = overridden(plan, {"architecture.d_model": "1536", multiplier: "6"})
    assert wide.parametrization == FAMILIES["mup"]["111M"].parametrization(wide.architecture)


def test_the_description_holds_the_figures():
    rows = dict(describe(published_plan("111M")))
    assert rows["parameters"] == "111,050,496 (embeddings 40,170,240)"
    assert rows["steps"] == "9,037 of 120 sequences (245,760 tokens)"
    assert rows["training compute"].startswith("2.64e+18 FLOPs")
    assert "predicted loss" not in rows


def test_the_description_holds_the_prediction():
    plan = Plan("a", SHAPE, standard(SHAPE), 4, 10, 2, 1e-3, prediction=Prediction("mine", 1.5, 1.4, 1.6))
    assert dict(describe(plan))["predicted loss"] == "1.500 bits per byte (1.400 to 1.600; mine)"


def test_another_depth_of_completep_needs_its_multiplier():
    plan = replace(SMALL, parametrization=completep(SHAPE, Base(n_layers=1)))
    layers = {"architecture.n_layers": str(2 * SHAPE.n_layers)}
    with pytest.raises(ValueError, match=r"another n_layers also needs parametrization\.depth_multiplier"):
        overridden(plan, layers)
    deep = overridden(plan, layers | {"parametrization.depth_multiplier": str(2 * SHAPE.n_layers)})
    assert deep.parametrization == completep(deep.architecture, Base(n_layers=1))
