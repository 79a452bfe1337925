from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerebras_gpt import config


@dataclass(frozen=True)
class Wheel:
    size: int
    kind: Literal["road", "gravel"] = "road"


@dataclass(frozen=True)
class Bike:
    name: str
    front: Wheel
    spare: Wheel | None = None
    gears: tuple[int, ...] = ()
    weight: float = 9.0

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ValueError(f"weight is {self.weight}; it must be positive")


BIKE = Bike("red", Wheel(28), gears=(11, 30))

wheels = st.builds(Wheel, st.integers(), st.sampled_from(["road", "gravel"]))
bikes = st.builds(Bike, st.text(), wheels, st.none() | wheels, st.lists(st.integers()).map(tuple), st.floats(0.1, 99))


@given(bikes)
def test_a_mapping_gives_back_its_dataclass(bike):
    assert config.from_mapping(Bike, config.to_mapping(bike)) == bike


@given(bikes)
def test_no_settings_change_nothing(bike):
    assert config.overridden(bike, {}) == bike


def test_an_unknown_key_is_refused_with_its_neighbour():
    with pytest.raises(ValueError, match="unknown bike key 'geers'; did you mean 'gears'"):
        config.from_mapping(Bike, {"geers": []})


def test_an_unknown_inner_key_is_refused_with_its_neighbour():
    with pytest.raises(ValueError, match="unknown wheel key 'sise'; did you mean 'size'"):
        config.from_mapping(Bike, {"name": "a", "front": {"sise": 1}})


def test_a_name_like_no_other_gets_no_suggestion():
    assert config.unknown("size", "zzz", ["111M", "13B"]) == "unknown size 'zzz'; allowed: 111M, 13B"


def test_missing_keys_are_named():
    with pytest.raises(ValueError, match="bike lacks name, front; add it"):
        config.from_mapping(Bike, {"weight": 3})


@pytest.mark.parametrize(("key", "value"), [("weight", "heavy"), ("gears", 3), ("name", 5), ("front", 28)])
def test_a_value_of_the_wrong_type_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=f"bike key {key!r} is {value!r}: input should be") as error:
        config.from_mapping(Bike, config.to_mapping(BIKE) | {key: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [[1], "bike", 3, None])
def test_what_is_not_a_mapping_is_refused(value):
    with pytest.raises(ValueError, match=r"bike is .*; it must be a mapping"):
        config.from_mapping(Bike, value)


def test_the_dataclass_keeps_its_own_rules():
    with pytest.raises(ValueError, match="weight is -1"):
        config.overridden(BIKE, {"weight": "-1"})


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("weight", "7.5", Bike("red", Wheel(28), gears=(11, 30), weight=7.5)),
        ("name", "blue", Bike("blue", Wheel(28), gears=(11, 30))),
        ("name", '"7"', Bike("7", Wheel(28), gears=(11, 30))),
        ("gears", "[1, 2, 3]", Bike("red", Wheel(28), gears=(1, 2, 3))),
        ("front.kind", "gravel", Bike("red", Wheel(28, "gravel"), gears=(11, 30))),
        ("front.size", "2e1", Bike("red", Wheel(20), gears=(11, 30))),
        ("front", '{"size": 26}', Bike("red", Wheel(26), gears=(11, 30))),
        ("spare.size", "24", Bike("red", Wheel(28), Wheel(24), gears=(11, 30))),
    ],
)
def test_a_setting_replaces_one_value(key, text, expected):
    assert config.overridden(BIKE, {key: text}) == expected


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("fron.size", "unknown bike key 'fron'; did you mean 'front'"),
        ("front.siz", "unknown wheel key 'siz'; did you mean 'size'"),
        ("spare.siez", "unknown wheel key 'siez'; did you mean 'size'"),
        ("weight.x", "bike key 'weight' is {'x': 1}"),
        ("", "unknown bike key ''"),
    ],
)
def test_a_misspelt_setting_is_refused(key, message):
    with pytest.raises(ValueError, match=message):
        config.overridden(BIKE, {key: "1"})


def test_a_setting_inside_an_empty_part_must_complete_it():
    with pytest.raises(ValueError, match="wheel lacks size; add it"):
        config.overridden(BIKE, {"spare.kind": "gravel"})
