"""Before a run: what fits is told, what does not is refused with what would."""

import re

import pytest

from cerebras_gpt.plan.memory import peak_bytes
from cerebras_gpt.plan.optimal import ENDLESS, family_plan, optimal_plan, reading
from cerebras_gpt.plan.plan import published_plan
from cerebras_gpt.plan.preflight import Room, check_disk, disk_bytes, micro_batch, preflight

PLAN = published_plan("111M")


def test_the_largest_micro_batch_that_fits_is_picked():
    for n_sequences in (1, 7, PLAN.batch_size):
        memory = peak_bytes(PLAN.architecture, n_sequences, n_micro_batches=-(-PLAN.batch_size // n_sequences))
        assert micro_batch(PLAN, memory) == n_sequences
        assert micro_batch(PLAN, 10 * peak_bytes(PLAN.architecture, PLAN.batch_size)) == PLAN.batch_size


def test_what_cannot_fit_is_refused_with_the_largest_size_that_does():
    with pytest.raises(ValueError, match=r"13B needs 2.. GB to train one sequence at a time, 16 GB") as refused:
        micro_batch(published_plan("13B"), 16 * 10**9)
    tokens, width = (re.search(pattern, str(refused.value))[1] for pattern in (r"--tokens (\S+)$", r"width (\d+)"))
    found = optimal_plan(reading(float(tokens)))
    assert found.architecture.d_model == int(width)
    assert micro_batch(found, 16 * 10**9) >= 1


def test_where_nothing_fits_that_is_said():
    with pytest.raises(ValueError, match=r"the smallest size of the family needs 0\.[5-8]\d? GB; free some"):
        micro_batch(PLAN, 10**8)


def test_disk_is_counted_before_anything_is_written():
    assert disk_bytes(PLAN) == 3 * 12 * PLAN.architecture.n_parameters
    check_disk(PLAN, disk_bytes(PLAN), "runs")
    with pytest.raises(ValueError, match="no space: checkpoints of this plan need 4 GB"):
        check_disk(PLAN, disk_bytes(PLAN) - 1, "runs")


def test_the_rows_say_what_is_needed_and_what_is_there():
    told = dict(preflight(PLAN, Room(16 * 10**9, 10**11)))
    assert "weights 0.666, gradients" in told["peak memory"] and "the most that fit in 16 GB" in told["micro-batch"]
    assert told["disk"] == "4 GB for checkpoints, 100 GB are free"
    assert "too little memory" in dict(preflight(PLAN, Room(10**9, 10**11)))["micro-batch"]


def test_memory_grows_with_the_size():
    peaks = [peak_bytes(family_plan(width, ENDLESS, 1).architecture, 1) for width in (64, 256, 768, 2048)]
    assert peaks == sorted(peaks)
