"""A world of one and of many share the work; a stop is asked for once and enforced the second time."""

import os
import signal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cerebras_gpt.distributed import StopFlag, World, joined


@given(st.lists(st.integers()), st.integers(1, 9))
def test_the_shares_are_a_partition(items, size):
    shares = [World(rank, size).share(items) for rank in range(size)]
    assert sorted(item for share in shares for item in share) == sorted(items)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_only_the_first_process_is_main():
    assert [World(rank, 3).is_main for rank in range(3)] == [True, False, False]


def test_the_sum_over_one_process_is_the_thing_itself():
    tensor = torch.arange(3.0)
    World().sum_([tensor])
    assert tensor.tolist() == [0, 1, 2]


def test_without_torchrun_the_world_is_one(monkeypatch):
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    with joined() as world:
        assert world == World(0, 1)


@pytest.mark.parametrize("number", StopFlag.SIGNALS)
def test_a_signal_sets_the_flag_and_a_second_acts_as_ever(number):
    class OrdinaryError(Exception):
        pass

    def as_ever(*_):
        raise OrdinaryError

    before = signal.signal(number, as_ever)
    try:
        with StopFlag() as stop:
            assert not stop.is_set()
            os.kill(os.getpid(), number)
            assert stop.is_set()
            with pytest.raises(OrdinaryError):
                os.kill(os.getpid(), number)
        assert signal.getsignal(number) is as_ever
    finally:
        signal.signal(number, before)


def test_a_closed_flag_leaves_signals_as_they_were():
    before = [signal.getsignal(number) for number in StopFlag.SIGNALS]
    with StopFlag():
        assert [signal.getsignal(number) for number in StopFlag.SIGNALS] != before
    assert [signal.getsignal(number) for number in StopFlag.SIGNALS] == before
