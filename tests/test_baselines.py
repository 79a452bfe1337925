import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebras_gpt.evaluate.baselines import (
    CODECS,
    LONGEST_ORDER,
    byte_probabilities,
    compression,
    measure_baselines,
    witten_bell,
)

TRAIN = b"the cat sat on the mat; the dog sat on the log. " * 3 + b"a cat and a dog sat. \xc3\xa9t\xc3\xa9"
HELD_OUT = b"the dog and the cat sat on a mat. zzz \xc3\xa9"
small_text = st.text("ab \xe9", max_size=40).map(str.encode)


def slow_probability(train: bytes, context: bytes, byte: int) -> float:
    """The docstring's formula, one context at a time, from dictionaries."""
    followers: dict[bytes, Counter[int]] = defaultdict(Counter)
    for k in range(len(context) + 1):
        for i in range(len(train) - k):
            followers[train[i : i + k]][train[i + k]] += 1
    p = 1 / 256
    for k in range(len(context) + 1):
        seen = followers[context[len(context) - k :]]
        c, t = sum(seen.values()), len(seen)
        p = (seen[byte] + t * p) / (c + t) if c else p
    return p


@given(small_text, small_text.filter(len), st.integers(1, LONGEST_ORDER))
@settings(max_examples=60, deadline=None)
def test_probabilities_equal_the_formula_on_dictionaries(train, held_out, order):
    expected = [slow_probability(train, held_out[max(0, i - order + 1) : i], held_out[i]) for i in range(len(held_out))]
    assert byte_probabilities(train, held_out, order) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("context", [b"", b"the ", b"sat on the", b"zzzz", b"\xc3"])
@pytest.mark.parametrize("order", [1, 3, 5, 8])
def test_probabilities_of_all_next_bytes_sum_to_one(context, order):
    total = sum(byte_probabilities(TRAIN, context + bytes([byte]), order)[-1] for byte in range(256))
    assert total == pytest.approx(1, abs=1e-12)


def test_bits_per_byte_is_the_mean_surprise():
    surprise = [-math.log2(slow_probability(TRAIN, HELD_OUT[max(0, i - 4) : i], HELD_OUT[i])) for i in range(38)]
    assert witten_bell(TRAIN, HELD_OUT[:38]) == pytest.approx(np.mean(surprise))


def test_without_training_text_every_byte_costs_eight_bits():
    assert witten_bell(b"", HELD_OUT) == 8


def test_repeated_text_costs_little_and_new_text_more():
    assert witten_bell(TRAIN, TRAIN) < 1 < witten_bell(TRAIN, bytes(range(256)))


def test_longer_contexts_help_on_text_seen_before():
    bits = [witten_bell(TRAIN, TRAIN, order) for order in range(1, 6)]
    assert bits == sorted(bits, reverse=True)


@pytest.mark.parametrize("name", CODECS)
def test_a_primed_codec_does_better_than_an_unprimed_one(name):
    rng = np.random.default_rng(0)
    words = [bytes(rng.integers(97, 123, 7, np.uint8)) for _ in range(300)]
    train, held_out = (b" ".join(words[i] for i in rng.integers(0, 300, 3000)) for _ in range(2))
    assert 0 < compression(train, held_out, CODECS[name]) < compression(b"", held_out, CODECS[name]) < 8


def test_xz_finds_a_copy_at_any_distance():
    text = np.random.default_rng(0).integers(0, 256, 200_000, np.uint8).tobytes()
    assert compression(text, text[:50_000], CODECS["xz"]) < 0.05


def test_measure_baselines_names_what_the_report_draws():
    measured = measure_baselines(TRAIN, HELD_OUT)
    assert list(measured) == ["xz", "bzip2", "byte 5-gram"]
    assert measured["byte 5-gram"] == witten_bell(TRAIN, HELD_OUT)


@pytest.mark.parametrize("order", [0, 9])
def test_an_order_that_cannot_be_packed_is_refused(order):
    with pytest.raises(ValueError, match="allowed: 1 to 8"):
        witten_bell(TRAIN, HELD_OUT, order)


def test_no_held_out_text_is_refused():
    with pytest.raises(ValueError, match="0 bytes"):
        measure_baselines(TRAIN, b"")
