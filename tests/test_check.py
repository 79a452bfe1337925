"""The verb: what it checks of a run, what it writes, how it ends."""

import json
from dataclasses import replace

import pytest

from cerebras_gpt.check import Settings, named_subject, promise_of, subject_of, sweep_of
from cerebras_gpt.errors import DOES_NOT_HOLD, MISTAKE
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.plan.families import BASES, PARAMETRIZATIONS, Base, completep
from cerebras_gpt.plan.plan import published_plan

QUICK = ("--seeds", 3, "--steps", 4, "--widths", "32,64,128")


def test_sp_and_mup_side_by_side_end_with_the_code_of_what_does_not_hold(call, tmp_path):
    names = ("--parametrization", "sp", "--parametrization", "mup")
    code, out, err = call("check", *names, "--along", "width", *QUICK, "--out", tmp_path)
    assert code == DOES_NOT_HOLD
    assert "mup HOLDS" in out
    assert "sp DOES NOT HOLD in " in out
    last = err.splitlines()[-1]
    assert last.startswith("cerebras-gpt: sp does not hold: the size of attention logits grows with width^1.")
    sp, mup = json.loads((tmp_path / "check.json").read_text())
    assert (sp["holds"], mup["holds"]) == (False, True)
    assert sp["direct"] == {"groups": [], "start": [], "forward": []}
    assert 10_000 < (tmp_path / "check-width.png").stat().st_size < 200_000


def test_a_plan_gives_its_parametrization_heads_and_constants(call, tmp_path, tiny):
    (tmp_path / "plan.json").write_text(tiny.to_json())
    code, out, _ = call("check", tmp_path / "plan.json", "--along", "width", *QUICK, "--json")
    assert code == 0
    (found,) = json.loads(out)
    assert (found["parametrization"], found["holds"]) == ("mup", True)
    assert found["base"] == {
        "d_model": 256,
        "n_layers": 2,
        "init_std": 0.08,
        "embedding_scale": 10.0,
        "output_alpha": 1.0,
    }
    assert "of tiny: heads of 16" in found["notes"][0]


def test_a_pack_and_its_transfer_are_checked_and_drawn(call, data, tmp_path):
    asked = ("--data", data, "--transfer", "--transfer-steps", 3, "--octaves", 1, "--workers", 1, "--out", tmp_path)
    code, out, _ = call("check", "--parametrization", "mup", "--along", "width", *QUICK, *asked)
    assert code in (0, DOES_NOT_HOLD)  # three steps decide nothing about rates
    assert "mup transfer: " in out
    (found,) = json.loads((tmp_path / "check.json").read_text())
    assert list(found["transfer"]["loss_by_width"]) == ["32", "64", "128"]
    assert (tmp_path / "check-transfer.png").stat().st_size > 5_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            (),
            "nothing to check; give a run, a plan.json, a size such as 111M, or --parametrization sp, mup or completep",
        ),
        (("--parametrization", "mupp"), "unknown parametrization 'mupp'; did you mean 'mup'?"),
        (("--parametrization", "mup", "--along", "wide"), "unknown axis 'wide'; did you mean 'width'?"),
        (("--parametrization", "mup", "--widths", "64;128"), "--widths '64;128' is not a list of whole numbers"),
        (("--parametrization", "mup", "--widths", "64,128"), "width 64, 128: a slope needs 3 or more values"),
        (("--parametrization", "mup", "--widths", "60,120,240"), "width 60 is not a multiple of the head width 16"),
        (("--parametrization", "mup", "--widths", "0,16,32"), "width 0 is no size"),
        (("--parametrization", "mup", "--seeds", "1"), "seeds is 1; give 2 or more"),
        (("--parametrization", "mup", "--lr", "0"), "peak_lr is 0.0; it must be positive and finite"),
        (("--parametrization", "mup", "--transfer"), "--transfer trains on real text: give --data"),
        (("111N",), "unknown size '111N'"),
        (("nowhere/plan.json",), "no plan at nowhere/plan.json"),
        (("--parametrization", "mup", "--data", "nowhere"), "nowhere"),
    ],
)
def test_a_mistake_is_one_line(call, arguments, words):
    code, out, err = call("check", *arguments)
    assert (code, out) == (MISTAKE, "")
    assert words in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_a_plan_tells_which_parametrization_it_follows_and_from_where(tiny, name):
    shape = Architecture(128, 4, 4, 64, 16)
    base = replace(BASES[name], d_model=32, n_layers=2, init_std=0.05, output_alpha=2.0)
    plan = replace(tiny, architecture=shape, parametrization=PARAMETRIZATIONS[name](shape, base))
    own, found = promise_of(plan)
    assert (own, PARAMETRIZATIONS[own](shape, found)) == (name, plan.parametrization)


@pytest.mark.parametrize(("size", "family"), [("111M", "sp"), ("256M", "mup"), ("2.7B", "mup")])
def test_published_plans_are_recognised(size, family):
    plan = published_plan(size, family)
    assert promise_of(plan)[0] == family
    made = sweep_of(subject_of(plan, Settings()), "width", Settings())
    assert {p.architecture.d_head for p in made.plans} == {plan.architecture.d_head}
    assert len(made.plans) == 4


def test_a_table_that_is_none_of_them_is_refused_by_name(tiny):
    odd = replace(tiny, parametrization=replace(tiny.parametrization, attention_power=0.7))
    with pytest.raises(ValueError, match="the table of tiny is none of sp, mup, completep"):
        promise_of(odd)


def test_the_smallest_shape_of_a_sweep_is_the_base():
    made = sweep_of(named_subject("completep", Settings()), "depth", Settings())
    assert [plan.parametrization.depth_multiplier for plan in made.plans] == [1, 2, 4, 8, 16]
    assert {plan.parametrization.width_multiplier for plan in made.plans} == {1}
    first = made.plans[0].architecture
    assert made.plans[0].parametrization == completep(first, Base(d_model=64, n_layers=2))
