"""The campaigns of docs/reliability.md in small: every row of them holds, and broken variants are caught."""

import random
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.faults import (  # noqa: E402
    controls,
    damage,
    disk,
    hostile,
    kill,
    numbers,
    order,
    saving,
    syscalls,
    terminate,
)
from benchmarks.faults.report import Report  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all, so that the runs without a fault are made once."""
    return tmp_path_factory.mktemp("faults")


def holds(campaign, *arguments, **named):
    """Runs a campaign; nothing in it may be otherwise than it must be."""
    report = Report("test", "python -m benchmarks.faults ...")
    campaign(report, *arguments, **named)
    assert report.cases and not report.failed
    return report


def test_kill_nine_at_five_random_moments_alters_nothing(folder):
    assert holds(kill.campaign, folder, moments=5, seed=3, steps=40).figures["float32 kills"] == 5


def test_every_damage_is_found_and_a_sound_checkpoint_never_refused(folder):
    report = holds(damage.campaign, folder, flips=100, seed=1)
    assert report.figures["damages"] > 900


def test_the_order_of_samples_is_that_of_one_process_in_ten_thousand_cases(folder):
    holds(order.campaign, folder, cases=10_000, seed=1)


def test_files_that_may_not_grow_leave_the_checkpoint_before(folder):
    holds(disk.campaign, folder, levels=8, seed=1, as_root=False)


def test_sigterm_in_every_phase_is_obeyed_in_time(folder):
    holds(terminate.campaign, folder, moments=1, seed=1)


def test_numbers_that_are_no_numbers_meet_the_policy(folder):
    assert holds(numbers.campaign, folder, seed=1, policies=("rewind",)).figures["obeyed"] == {"rewind": "12/12"}


def test_the_latest_checkpoint_verifies_whatever_becomes_of_its_writer(folder):
    assert holds(saving.campaign, folder, moments=6, seed=1).figures["observations"] > 50


def test_hostile_surroundings_lose_nothing(folder):
    holds(hostile.campaign, folder, seed=1)


CONTROLS = {
    controls.forgets_optimizer: controls.stopped_and_resumed,
    controls.keeps_rows: controls.damaged_newest,
    controls.no_verification: controls.damaged_newest,
    controls.in_place: controls.killed_in_a_save,
    controls.saves_anything: controls.poisoned,
    controls.by_rank: controls.ordered,
}


STRACE = """\
7 openat(AT_FDCWD</home>, "/r/checkpoints/.step_00000031.0a1b2c3d.tmp/model.json", O_WRONLY) = 5</r/model.json>
7 write(5</r/checkpoints/.step_00000031.0a1b2c3d.tmp/model.json>, "{\\"x\\": 1}", 8) = 8
7 write(5</r/checkpoints/.step_00000031.0a1b2c3d.tmp/model.json>, "}", 1) = 1
8 write(1</dev/null>, "...", 3) = 3
7 unlinkat(6</r/checkpoints/step_00000020>, "model.json", 0) = 0
"""


def test_every_site_of_a_save_comes_before_its_other_calls():
    first, rest = syscalls.drawn(syscalls.points(STRACE), random.Random(1))
    assert {(point.call, point.file) for point in first} == {
        ("openat", ".step_00000031.tmp/model.json"),
        ("write", ".step_00000031.tmp/model.json"),
        ("unlinkat", "step_00000020/model.json"),
    }
    assert [(point.call, point.file) for point in rest] == [("write", ".step_00000031.tmp/model.json")]


def test_a_part_of_the_broken_variants_is_caught(folder):
    holds(controls.campaign, folder, seed=1, variants=tuple(CONTROLS.items()))
