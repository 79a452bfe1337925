"""A tuned point: survives its file, and feeds a plan of any shape by the rules of its parametrization."""

import json
from dataclasses import replace

import pytest

from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.plan.families import Base, mup
from cerebras_gpt.plan.plan import published_plan, role_table
from cerebras_gpt.plan.tuned import Tuned, as_published, tuned_plan


@pytest.fixture
def tuned(tiny):
    base = Base(d_model=32, n_layers=2, init_std=0.11, embedding_scale=7.0)
    proxy = replace(tiny, parametrization=mup(tiny.architecture, base), peak_lr=0.0115)
    return Tuned("mup", base, 0.0115, proxy, "f" * 64, 4.2, 0.01, 3, 40, {"peak_lr": 0.1}, 10**6, 9.5, "trials.jsonl")


def at_width(plan, d_model):
    shape = replace(plan.architecture, d_model=d_model, n_heads=d_model // plan.architecture.d_head)
    return replace(plan, architecture=shape)


def test_a_plan_of_the_proxys_shape_gets_exactly_the_tuned_values(tiny, tuned):
    plan = tuned_plan(tiny, tuned)
    assert (plan.peak_lr, plan.parametrization) == (tuned.peak_lr, tuned.proxy.parametrization)
    rows = {row.role: row for row in role_table(plan)}
    assert rows["hidden"].peak_lr == rows["embedding"].peak_lr == 0.0115
    assert rows["hidden"].init_std == rows["embedding"].init_std == 0.11
    assert plan.parametrization.embedding_scale == 7.0 and plan.parametrization.logit_scale == 1.0


@pytest.mark.parametrize("m", [2, 3, 8])
def test_wider_plans_follow_the_rules_of_mup(tiny, tuned, m):
    plan = tuned_plan(at_width(tiny, 32 * m), tuned)
    rows = {row.role: row for row in role_table(plan)}
    assert rows["hidden"].peak_lr == pytest.approx(0.0115 / m)
    assert rows["hidden"].init_std == pytest.approx(0.11 / m**0.5)
    assert (rows["embedding"].peak_lr, rows["embedding"].init_std) == (0.0115, 0.11)
    assert rows["bias"].peak_lr == rows["norm"].peak_lr == 0.0115
    assert plan.parametrization.logit_scale == pytest.approx(1 / m)


def test_a_published_size_takes_the_tuned_values_and_keeps_its_shape_and_schedule(tuned):
    published = published_plan("111M", "mup")
    plan = tuned_plan(published, tuned)
    assert plan.parametrization.width_multiplier == 768 / 32
    assert (plan.architecture, plan.steps, plan.decay) == (published.architecture, published.steps, published.decay)


def test_the_reasons_name_the_search_and_what_it_does_not_carry_over(tiny, tuned):
    same = tuned_plan(tiny, tuned).reasons
    assert len(same) == 1
    assert "peak lr 0.0115" in same[0] and "width 32" in same[0] and "40 samples" in same[0] and tuned.hash in same[0]
    cautions = [reason for reason in tuned_plan(published_plan("111M"), tuned).reasons if "caution" in reason]
    assert [next(w for w in ("depth", "vocabulary", "tokens a step") if w in caution) for caution in cautions] == [
        "depth",
        "vocabulary",
        "tokens a step",
    ]
    standard = replace(tuned, parametrization="sp")
    assert any("width" in reason and "caution" in reason for reason in tuned_plan(at_width(tiny, 64), standard).reasons)


def test_without_a_search_a_plan_stays_as_it_is(tiny):
    assert as_published(tiny) is tiny


def test_a_tuned_point_survives_its_file_and_its_folder(tuned, tmp_path):
    (tmp_path / "tuned.json").write_text(tuned.to_json())
    assert Tuned.load(tmp_path / "tuned.json") == Tuned.load(tmp_path) == tuned


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parametrization": "mop"}, "mop.*did you mean 'mup'"),
        ({"peak_lr": -1.0}, "peak_lr is -1.0; it must be positive"),
        ({"peek_lr": 1.0}, "peek_lr.*did you mean 'peak_lr'"),
        ({"base": {"init_std": 0.0}}, "init_std is 0"),
        ({"base": {"d_model": 0}}, "d_model is 0"),
        ({"proxy": 3}, "proxy"),
    ],
)
def test_a_bad_file_is_refused_by_name(tuned, tmp_path, change, words):
    file = tmp_path / "tuned.json"
    file.write_text(json.dumps(json.loads(tuned.to_json()) | change))
    with pytest.raises(ValueError, match=f"tuned.json is not a tuned point: .*{words}"):
        Tuned.load(file)


def test_a_file_that_is_no_json_or_not_there_is_refused(tmp_path):
    (tmp_path / "tuned.json").write_text("{")
    with pytest.raises(ValueError, match="is not a tuned point"):
        Tuned.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no tuned point at .*; make one with: cerebras-gpt tune"):
        Tuned.load(tmp_path / "none.json")


def test_other_parametrizations_are_carried_by_their_own_rules(tiny, tuned):
    shape = Architecture(64, 4, 4, 288, 16)
    deep = replace(tiny, architecture=shape, parametrization=mup(shape))
    plan = tuned_plan(deep, replace(tuned, parametrization="completep"))
    assert plan.parametrization.depth_multiplier == 2 and plan.parametrization.width_multiplier == 2
