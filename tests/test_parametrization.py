import math
from dataclasses import replace

import pytest

from cerebras_gpt.model.parametrization import ROLES, Parametrization

SP = Parametrization(n_layers=10, d_head=64)
MUP = Parametrization(10, 64, width_multiplier=3, base_init_std=0.08, embedding_scale=10, attention_power=1.0)


def test_the_neutral_values_are_the_standard_parametrization():
    assert SP.row("embedding").init_std == SP.row("hidden").init_std == 0.02
    assert SP.row("residual_out").init_std == pytest.approx(0.0044721, rel=1e-4)
    assert {row.lr_scale for row in SP.table().values()} == {1.0}
    assert (SP.attention_scale, SP.logit_scale, SP.embedding_scale) == (1 / 8, 1.0, 1.0)


def test_mup_scales_hidden_tensors_alone():
    assert MUP.row("hidden").init_std == pytest.approx(0.08 / math.sqrt(3))
    assert MUP.row("residual_out").init_std == pytest.approx(0.08 / math.sqrt(60))
    assert MUP.row("embedding").init_std == 0.08
    assert {role: row.lr_scale for role, row in MUP.table().items()} == {
        "embedding": 1.0,
        "hidden": pytest.approx(1 / 3),
        "residual_out": pytest.approx(1 / 3),
        "bias": 1.0,
        "norm": 1.0,
    }


def test_mup_divides_attention_by_the_head_size_and_logits_by_the_width():
    assert MUP.attention_scale == 1 / 64
    assert MUP.logit_scale == pytest.approx(1 / 3)
    assert replace(MUP, output_alpha=6.0).logit_scale == 2.0


@pytest.mark.parametrize("table", [SP, MUP])
def test_weights_decay_and_constants_do_not(table):
    for role, row in table.table().items():
        assert bool(row.decay_scale) == (row.init_std > 0) == (role not in ("bias", "norm"))


def test_the_table_has_every_role_once_in_order():
    assert tuple(MUP.table()) == ROLES


def test_completep_scales_depth_as_its_table_says():
    m, r, L = 4.0, 8.0, 16
    table = Parametrization(
        L, 64, m, 0.02, attention_power=1.0, depth_multiplier=r, residual_init_power=0, decay_power=1, eps_power=1
    )
    assert table.residual_scale == 1 / r
    assert table.row("residual_out") == table.row("hidden")
    assert table.row("hidden") == (0.02 / 2, 1 / m, m, pytest.approx(1 / (m * r)))
    assert table.row("embedding") == (0.02, 1.0, 1.0, 1 / m)
    assert table.row("bias") == table.row("norm") == (0.0, 1.0, 0.0, pytest.approx(1 / (m * r)))
    half = replace(table, depth_power=0.5)
    assert half.residual_scale == pytest.approx(r**-0.5)
    assert half.row("norm").lr_scale == pytest.approx(r**-0.5)
    assert half.row("hidden").lr_scale == pytest.approx(r**-0.5 / m)


def test_depth_is_neutral_at_the_base_depth():
    neutral = replace(MUP, depth_multiplier=1.0, depth_power=0.3)
    assert neutral.residual_scale == 1.0
    assert neutral.table() == MUP.table()
