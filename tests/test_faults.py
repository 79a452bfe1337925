"""The campaigns of docs/reliability.md in small: every row of them holds, and broken variants are caught."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.faults import controls, damage, disk, hostile, kill, numbers, order, saving, terminate  # noqa: E402
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


def test_a_part_of_the_broken_variants_is_caught(folder):
    holds(controls.campaign, folder, seed=1, variants=tuple(CONTROLS.items()))
