import asyncio
import time

import pytest

from cerebras_gpt.errors import OURS
from cerebras_gpt.serve import watch as module
from cerebras_gpt.serve.limits import Limits
from cerebras_gpt.serve.watch import Watch


class Engine:
    """What the watch looks at."""

    name, beat, is_gone = "tiny", 1.0, False


@pytest.fixture
def clock(monkeypatch):
    """A time that passes when told."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def looks(watch, clock, seconds):
    """So long, with a look as often as the watch looks."""
    for _ in range(round(seconds / module.LOOK_SECONDS)):
        clock[0] += module.LOOK_SECONDS
        watch._look()


def test_an_engine_that_stands_still_is_red_within_two_seconds_and_not_before_one_and_a_half(clock):
    engine = Engine()
    watch = Watch([engine], Limits())
    looks(watch, clock, 1.5)
    assert not watch.is_red(engine)
    looks(watch, clock, 0.4)
    assert watch.is_red(engine)
    engine.beat = 2.0
    looks(watch, clock, module.LOOK_SECONDS)
    assert not watch.is_red(engine)


def test_a_process_that_was_stopped_and_goes_on_is_not_red(clock):
    engine = Engine()
    watch = Watch([engine], Limits())
    looks(watch, clock, 0.5)
    clock[0] += 3600
    looks(watch, clock, 0.5)
    assert not watch.is_red(engine)


def test_an_engine_without_a_thread_is_red_at_once():
    engine = Engine()
    engine.is_gone = True
    assert Watch([engine], Limits()).is_red(engine)


def test_an_engine_that_stands_still_for_too_long_ends_the_process(monkeypatch):
    def ended(code):
        raise SystemExit(code)

    monkeypatch.setattr(module.os, "_exit", ended)
    with pytest.raises(SystemExit) as end:
        asyncio.run(Watch([Engine()], Limits(exit_seconds=0.3)).keep())
    assert end.value.code == OURS
