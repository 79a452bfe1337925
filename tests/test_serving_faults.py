"""The campaigns of docs/serve-faults.md in small, each against a server process of its own."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.faults.report import Report  # noqa: E402
from benchmarks.serving_faults import (  # noqa: E402
    borders,
    conservation,
    engines,
    fuzz,
    invariance,
    leaving,
    parameters,
    paths,
    resources,
    soak,
    streams,
)
from benchmarks.serving_faults.asking import Client  # noqa: E402
from benchmarks.serving_faults.target import Target  # noqa: E402

SMALL = {
    borders: range(0, 72, 6),
    conservation: range(1500),
    engines: [0, 4],
    invariance: range(60),
    leaving: range(50),
    parameters: range(400),
    paths: range(100),
    resources: range(0, 25, 4),
    streams: range(60),
}


def holds(campaign, folder, numbers):
    """Runs a campaign; nothing in it may be otherwise than it must be."""
    report = Report("test", "python -m benchmarks.serving_faults ...")
    campaign(report, folder, 3, numbers)
    assert report.cases and not report.failed
    return report


@pytest.mark.parametrize("row", SMALL, ids=lambda row: row.__name__.rpartition(".")[2])
def test_every_row_holds_in_small(row, tmp_path):
    holds(row.campaign, tmp_path, SMALL[row])


def test_a_soak_in_small_fails_and_starves_nobody(tmp_path):
    report = Report("test", "python -m benchmarks.serving_faults ...")
    soak.campaign(report, tmp_path, 3, range(6))
    luck = ("speed", "memory")  # of a second each, and of a first few pages over a few answers
    assert all(case["case"] in luck for case in report.failed) and report.figures["clients, answers, tokens"][1] > 50


def test_a_signal_is_heard_while_the_loop_is_behind(tmp_path):
    def plant(_):
        def burst(*_):
            for _ in range(2000):  # as an engine does whose pieces wait for the loop
                asyncio.get_running_loop().call_soon_threadsafe(int)
            os.kill(os.getpid(), signal.SIGTERM)

        signal.signal(signal.SIGUSR1, burst)

    with Target(tmp_path, plant=plant) as target:
        Client(target.port).waited()
        target.child.signal(signal.SIGUSR1)
        assert target.child.wait(10) == 0


def test_twenty_thousand_requests_make_nothing_fail(tmp_path):
    report = holds(fuzz.campaign, tmp_path, range(20_000))
    assert {200, 400, 404, 405, "raw 400", "raw 431"} <= set(report.figures["statuses"])
