"""The optimizer is the table times the schedule."""

import copy
import dataclasses
import subprocess
import sys
from itertools import pairwise

import pytest
import torch

from cerebras_gpt.model.gpt import GPT, initialize, roles
from cerebras_gpt.plan.families import completep, mup, standard
from cerebras_gpt.train.optim import (
    AVERAGE_POWER,
    averaged_optimizer,
    groups_of,
    learning_rate,
    optimizer,
    set_learning_rate,
    state_tensors,
)


@pytest.fixture(params=[standard, mup, completep], ids=["sp", "mup", "completep"])
def plan(request, tiny):
    return dataclasses.replace(tiny, parametrization=request.param(tiny.architecture))


@pytest.fixture
def model(plan):
    return initialize(GPT(plan.architecture, plan.parametrization), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("decay", ["linear", "cosine"])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 1.0])
def test_the_rate_rises_to_the_peak_and_falls_to_its_final_fraction(tiny, decay, fraction):
    plan = dataclasses.replace(tiny, decay=decay, final_lr_fraction=fraction, steps=50, warmup_steps=7)
    rates = [learning_rate(plan, step) for step in range(51)]
    assert rates[0] == 0
    assert rates[7] == max(rates) == plan.peak_lr
    assert rates[50] == pytest.approx(fraction * plan.peak_lr, rel=1e-12, abs=1e-18)
    assert all(a < b for a, b in pairwise(rates[:8]))
    assert all(a >= b for a, b in pairwise(rates[7:]))


def test_warm_up_is_a_straight_line(tiny):
    plan = dataclasses.replace(tiny, warmup_steps=4)
    shares = [learning_rate(plan, step) / plan.peak_lr for step in range(5)]
    assert shares == pytest.approx([0, 0.25, 0.5, 0.75, 1])


def test_half_way_down_both_decays_meet(tiny):
    plans = [dataclasses.replace(tiny, decay=decay, steps=50, warmup_steps=10) for decay in ("linear", "cosine")]
    linear, cosine = (learning_rate(plan, 30) for plan in plans)
    assert linear == pytest.approx(cosine) == pytest.approx(0.55 * tiny.peak_lr)


def test_every_parameter_gets_the_table_s_share_of_the_rate(plan, model):
    adamw = optimizer(model, plan)
    set_learning_rate(adamw, 0.5)
    group_by_id = {id(parameter): group for group in adamw.param_groups for parameter in group["params"]}
    for _, parameter, role in roles(model):
        row = plan.parametrization.row(role)
        group = group_by_id.pop(id(parameter))
        assert group["lr"] == 0.5 * row.lr_scale
        assert group["weight_decay"] == plan.weight_decay * row.decay_scale
        assert (group["betas"], group["eps"]) == (plan.betas, plan.adam_eps * row.eps_scale)
    assert not group_by_id


def test_decay_is_for_matrices_alone(plan, model):
    for group in optimizer(model, plan).param_groups:
        assert {parameter.ndim for parameter in group["params"]} == ({2} if group["weight_decay"] else {1})


def test_updates_and_moments_are_those_of_torch_to_the_last_bit(plan, model):
    twin = copy.deepcopy(model)
    theirs = torch.optim.AdamW([dict(group) for group in groups_of(twin, plan)], fused=True)
    ours = optimizer(model, plan)
    for adamw, network in ((ours, model), (theirs, twin)):
        for rate in (0.01, 0.02, 0.003):
            set_learning_rate(adamw, rate)
            network(torch.arange(8)[None]).square().mean().backward()
            adamw.step()
            for parameter in network.parameters():
                parameter.grad = None
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    kept, wanted = state_tensors(ours, model), state_tensors(theirs, twin)
    assert kept.keys() == wanted.keys() and all(torch.equal(kept[name], wanted[name]) for name in kept)


def test_a_parameter_without_a_gradient_stays_as_it_is(plan, model):
    adamw, before = optimizer(model, plan), copy.deepcopy(model)
    set_learning_rate(adamw, 0.01)
    model.norm.weight.grad = torch.ones_like(model.norm.weight)
    adamw.step()
    pairs = zip(model.named_parameters(), before.parameters(), strict=True)
    assert [name for (name, now), then in pairs if not torch.equal(now, then)] == ["norm.weight"]
    adamw.let_go()
    assert model.norm.weight.grad is None


def test_a_run_does_without_torch_s_compiler(tiny, data, tmp_path):
    (tmp_path / "plan.json").write_text(tiny.to_json())
    verb = ["pretrain", str(tmp_path / "plan.json"), "--data", str(data), "--out", str(tmp_path / "run")]
    code = (
        f"import sys\nfrom cerebras_gpt.cli import main\nsys.argv[1:] = {verb!r}\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert 'torch' in sys.modules and 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def trained(adamw, model, steps):
    """The weights after each of so many steps down a bowl."""
    seen = []
    set_learning_rate(adamw, 0.01)
    for _ in range(steps):
        sum(parameter.square().sum() for parameter in model.parameters()).backward()
        adamw.step()
        adamw.let_go()
        seen.append({name: parameter.detach().clone() for name, parameter in model.named_parameters()})
    return seen


def test_the_average_is_that_of_the_weights_the_later_counting_more(model, plan):
    adamw = averaged_optimizer(model, plan)
    seen, power = trained(adamw, model, 5), AVERAGE_POWER
    wanted = seen[0]
    for step, weights in enumerate(seen[1:], 2):
        share = (power + 1) / (step + power)
        wanted = {name: (1 - share) * wanted[name] + share * weights[name] for name in wanted}
    kept = state_tensors(adamw, model)
    for name in wanted:
        torch.testing.assert_close(kept[f"{name}.average"], wanted[name])


def test_averages_take_the_place_of_the_weights_and_leave_it_to_the_last_bit(model, plan):
    adamw = averaged_optimizer(model, plan)
    last = trained(adamw, model, 3)[-1]
    averages = {name: tensor.clone() for name, tensor in state_tensors(adamw, model).items() if "average" in name}
    with adamw.averages():
        assert all(torch.equal(p, averages[f"{name}.average"]) for name, p in model.named_parameters())
    assert all(torch.equal(p, last[name]) for name, p in model.named_parameters())
    assert all(torch.equal(state_tensors(adamw, model)[name], tensor) for name, tensor in averages.items())


def test_the_average_changes_no_update(model, plan):
    twin = GPT(plan.architecture, plan.parametrization)
    twin.load_state_dict(model.state_dict())
    pairs = [(optimizer(model, plan), model), (averaged_optimizer(twin, plan), twin)]
    ends = []
    for adamw, of in pairs:
        ends.append(trained(adamw, of, 3)[-1])
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
