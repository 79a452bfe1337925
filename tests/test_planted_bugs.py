"""The check catches what goes wrong: each bug is planted by the smallest means, and a named test sees it.

Bugs that change how things scale are seen by slopes; those that a coordinate check cannot see, by the direct laws.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch

from cerebras_gpt import check
from cerebras_gpt.check import Settings, Subject, check_direct, measured, named_subject, sweep_of
from cerebras_gpt.model import gpt
from cerebras_gpt.model.parametrization import Parametrization
from cerebras_gpt.train import coordinates, optim
from cerebras_gpt.train.slopes import judged, slopes

SETTINGS = Settings(widths=(16, 32, 64, 128), head_widths=(4, 8, 16, 32), depths=(2, 4, 8), steps=4, seeds=2)


@dataclass(frozen=True)
class Planted(Subject):
    """A subject whose tables carry a bug."""

    bug: Callable[[Parametrization], Parametrization] = lambda table: table

    def table(self, smallest):
        right = super().table(smallest)
        return lambda shape: self.bug(right(shape))


def subject(name, bug=lambda table: table):
    """A parametrization with a bug, and shapes that train in no time."""
    made = named_subject(name, SETTINGS)
    shape = replace(made.template.architecture, d_model=8, vocab_size=64, seq_len=16)
    template = replace(made.template, architecture=shape, parametrization=made.table(shape)(shape), batch_size=4)
    return Planted(name, made.base, template, bug=bug)


def row(change):
    """A bug in one place of the table's rows."""

    class Bugged(Parametrization):
        def row(self, role):
            return change(self, role, super().row(role))

    return lambda table: Bugged(**vars(table))


def wrong_slopes(name, axis, bug=lambda table: table):
    """(quantity, whether at the start) of every slope that does not hold."""
    made = subject(name, bug)
    found = slopes(axis, measured(made, sweep_of(made, axis, SETTINGS), SETTINGS))
    return {(slope.quantity, slope.step == 0) for slope in judged(found) if not slope.holds}


def broken(name, bug=lambda table: table):
    """What the direct laws find, by law, and only of the laws that are broken."""
    made = subject(name, bug)
    found = check_direct(made, sweep_of(made, "width", SETTINGS))
    return {law: lines for law, lines in found.items() if lines}


@pytest.mark.parametrize("name", ["sp", "mup", "completep"])
def test_without_a_bug_every_direct_law_holds(name):
    assert broken(name) == {}


def test_attention_scaled_by_the_root_is_seen_over_head_widths_and_in_the_forward_pass():
    def bug(table):
        return replace(table, attention_power=0.5)

    assert set(broken("mup", bug)) == {"forward"}
    assert ("attention logits", False) in wrong_slopes("mup", "head", bug)


def test_attention_scaled_by_the_root_is_not_seen_over_widths_with_heads_as_wide():
    assert not wrong_slopes("mup", "width", lambda table: replace(table, attention_power=0.5))


def test_logits_that_are_not_divided_by_the_width_are_seen_at_the_start():
    def bug(table):
        return replace(table, output_alpha=table.width_multiplier)

    assert ("logits", True) in wrong_slopes("mup", "width", bug)
    assert set(broken("mup", bug)) == {"forward"}


def test_logits_that_are_divided_twice_are_seen_in_their_change():
    def bug(table):
        return replace(table, output_alpha=1 / table.width_multiplier)

    assert ("logits", False) in wrong_slopes("mup", "width", bug)
    assert set(broken("mup", bug)) == {"forward"}


def test_a_hidden_rate_that_does_not_follow_the_width_is_seen_in_the_changes():
    bug = row(lambda table, role, right: right._replace(lr_scale=1.0))
    assert ("residual stream", False) in wrong_slopes("mup", "width", bug)
    assert all(": lr is" in line for line in broken("mup", bug)["groups"])


def test_a_rate_that_ignores_its_group_is_seen_in_the_changes(monkeypatch):
    def deaf(adamw, rate):
        for group in adamw.param_groups:
            group["lr"] = rate

    monkeypatch.setattr(coordinates, "set_learning_rate", deaf)
    assert ("residual stream", False) in wrong_slopes("mup", "width")


def test_hidden_tensors_that_start_too_wide_are_seen_at_the_start():
    def change(table, role, right):
        return right._replace(init_std=table.base_init_std) if role == "hidden" else right

    assert ("feed-forward", True) in wrong_slopes("mup", "width", row(change))
    assert any("qkv" in line for line in broken("mup", row(change))["start"])


def test_residual_projections_that_start_too_wide_are_seen_at_the_start():
    def change(table, role, right):
        wide = right.init_std * table.width_multiplier**0.5
        return right._replace(init_std=wide) if role == "residual_out" else right

    wrong = wrong_slopes("mup", "width", row(change))
    assert {("attention write", True), ("feed-forward write", True)} <= wrong
    assert all(".out." in line or ".down." in line for line in broken("mup", row(change))["start"])


def test_residual_projections_without_the_root_of_the_depth_are_seen_at_the_start():
    lines = broken("mup", lambda table: replace(table, residual_init_power=0.0))
    assert set(lines) == {"start"}
    assert all(".out." in line or ".down." in line for line in lines["start"])


def test_a_multiplier_on_tokens_alone_is_seen_in_the_forward_pass(monkeypatch):
    def hidden(model, ids, cache=None, dtype=None):
        x = model.token_embedding(ids) * model.parametrization.embedding_scale
        x = x + model.position_embedding(torch.arange(ids.shape[1]))
        for block in model.blocks:
            x = block(x)
        return model.norm(x) * model.parametrization.logit_scale

    monkeypatch.setattr(gpt.GPT, "hidden", hidden)
    assert set(broken("mup")) == {"forward"}
    assert not broken("sp")  # its multiplier is 1


def test_decay_on_biases_and_norms_is_seen_in_the_groups():
    lines = broken("mup", row(lambda table, role, right: right._replace(decay_scale=1.0)))
    assert set(lines) == {"groups"}
    assert {line.partition(":")[0].rpartition(".")[2] for line in lines["groups"]} == {"bias", "weight"}
    assert all("bias" in line or "norm" in line for line in lines["groups"])


def test_embeddings_without_decay_are_seen_in_the_groups():
    def change(table, role, right):
        return right._replace(decay_scale=0.0) if role == "embedding" else right

    lines = broken("mup", row(change))["groups"]
    assert [line.partition(":")[0] for line in lines] == ["token_embedding.weight", "position_embedding.weight"]


def test_embeddings_whose_rate_follows_the_width_are_seen_in_groups_and_changes():
    def change(table, role, right):
        return right._replace(lr_scale=1 / table.width_multiplier) if role == "embedding" else right

    assert len(broken("mup", row(change))["groups"]) == 2
    assert ("embedding", False) in wrong_slopes("mup", "width", row(change))


def test_an_epsilon_that_does_not_follow_the_gradients_is_seen_in_the_groups():
    lines = broken("completep", lambda table: replace(table, eps_power=0.0))
    assert set(lines) == {"groups"}
    assert all(": eps is" in line for line in lines["groups"])


def test_qkv_with_the_role_of_an_embedding_is_seen_everywhere(monkeypatch):
    made = gpt.Attention.__init__

    def mislabelled(attention, *arguments):
        made(attention, *arguments)
        attention.qkv.role = "embedding"

    monkeypatch.setattr(gpt.Attention, "__init__", mislabelled)
    lines = broken("mup")
    assert {name for law in lines.values() for name in [law[0].split(".")[3]]} == {"qkv"}
    assert ("attention logits", True) in wrong_slopes("mup", "width")


@pytest.mark.parametrize("times", [0, 2])
def test_a_parameter_in_no_group_or_in_two_is_seen_in_the_groups(monkeypatch, times):
    def miscounted(model):
        for one in gpt.roles(model):
            yield from [one] * (times if one.name == "norm.bias" else 1)

    right = optim.optimizer

    def optimizer(model, plan):
        monkeypatch.setattr(optim, "roles", miscounted)
        return right(model, plan)

    monkeypatch.setattr(check, "optimizer", optimizer)
    assert broken("mup") == {"groups": [f"norm.bias is in {times} groups"]}


def test_branches_that_do_not_shrink_with_depth_are_seen_over_depth():
    class Bugged(Parametrization):
        residual_scale = 1.0

    def bug(table):
        return Bugged(**vars(table))

    assert "forward" in broken("completep", bug)
    assert ("residual stream", False) in wrong_slopes("completep", "depth", bug)


def test_a_rate_that_follows_depth_though_branches_shrink_with_it_is_seen():
    def change(table, role, right):
        return right._replace(lr_scale=right.lr_scale / table.depth_multiplier) if role != "embedding" else right

    assert any("lr is" in line for line in broken("completep", row(change))["groups"])
    assert ("feed-forward", False) in wrong_slopes("completep", "depth", row(change))
