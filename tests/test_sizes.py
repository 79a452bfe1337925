import json
from itertools import pairwise
from pathlib import Path

import pytest

from cerebras_gpt.plan.families import mup, standard
from cerebras_gpt.plan.sizes import FAMILIES, RELEASED_RESIDUAL_OUT_STD, SIZES, WIDTHS, architecture, small_architecture

PUBLISHED = json.loads((Path(__file__).parent / "golden" / "published.json").read_text("utf-8"))


def test_the_families_are_the_published_ones():
    assert list(SIZES) == list(FAMILIES["sp"]) == list(PUBLISHED["sizes"])
    assert list(FAMILIES["mup"]) == list(PUBLISHED["mup"])


@pytest.mark.parametrize("name", SIZES)
def test_shapes_match_the_release(name):
    shape, published = architecture(name), PUBLISHED["sizes"][name]
    for field in ("d_model", "n_layers", "n_heads", "d_head", "d_ffn", "n_parameters", "n_embedding_parameters"):
        assert getattr(shape, field) == published[field], field


@pytest.mark.parametrize("name", SIZES)
def test_a_name_says_how_many_parameters(name):
    number, unit = float(name[:-1]), {"M": 1e6, "B": 1e9}[name[-1]]
    assert architecture(name).n_parameters == pytest.approx(number * unit, rel=0.02)


def test_an_unknown_size_is_refused_with_its_neighbour():
    with pytest.raises(ValueError, match="unknown size '11M'; did you mean '111M'"):
        architecture("11M")


@pytest.mark.parametrize("name", SIZES)
def test_standard_stds_match_the_release_but_for_two_named_ones(name):
    shape = architecture(name)
    published = PUBLISHED["sizes"][name]["residual_out_std"]
    ours = standard(shape).row("residual_out").init_std
    assert RELEASED_RESIDUAL_OUT_STD.get(name, ours) == pytest.approx(published, abs=1e-7)
    assert (name in RELEASED_RESIDUAL_OUT_STD) == (ours != pytest.approx(published, abs=1e-7))


@pytest.mark.parametrize("name", PUBLISHED["mup"])
def test_mup_matches_the_release(name):
    table, published = mup(architecture(name)), PUBLISHED["mup"][name]
    assert table.width_multiplier == published["width_multiplier"]
    assert table.row("embedding").init_std == PUBLISHED["mup_common"]["init_std"]
    assert table.row("hidden").init_std == pytest.approx(published["hidden_std"], rel=1e-4)
    assert table.row("residual_out").init_std == pytest.approx(published["residual_out_std"], rel=1e-4)
    assert table.logit_scale == pytest.approx(published["logit_scale"], rel=1e-4)
    assert table.attention_scale == 1 / published["attention_divisor"]
    assert table.embedding_scale == PUBLISHED["mup_common"]["embedding_scale"]


def test_small_sizes_meet_the_family_at_111m():
    assert small_architecture(768, 50257, 2048) == architecture("111M")


@pytest.mark.parametrize(("width", "layers"), [(32, 2), (128, 2), (192, 2), (256, 3), (512, 6), (768, 10)])
def test_small_sizes_keep_the_stated_depth(width, layers):
    assert small_architecture(width, 1024, 128).n_layers == layers


def test_small_sizes_grow_steadily():
    shapes = [small_architecture(width, 4096, 512) for width in WIDTHS]
    assert all(shape.d_head == (64 if shape.d_model % 64 == 0 else 32) for shape in shapes)
    for smaller, larger in pairwise(shapes):
        assert smaller.n_layers <= larger.n_layers
        assert 1 < larger.n_parameters / smaller.n_parameters < 2.0
    assert all(70 <= shape.d_model / shape.n_layers <= 97 for shape in shapes if shape.d_model >= 160)


@pytest.mark.parametrize("width", [0, 16, 33, 100])
def test_a_width_that_heads_do_not_divide_is_refused(width):
    with pytest.raises(ValueError, match="multiple of 32; choose one of 64, 96"):
        small_architecture(width, 1024, 128)
