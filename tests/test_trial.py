"""Trials: reproducible, independent of order and of how many train at once, and safe against every interruption."""

import json
import math
import multiprocessing
import os
import signal
from dataclasses import replace

import pytest

from cerebras_gpt.data.shards import Shards
from cerebras_gpt.errors import STOPPED, ending
from cerebras_gpt.train import crew
from cerebras_gpt.train.crew import Processes
from cerebras_gpt.train.execution import Execution
from cerebras_gpt.train.trial import Trial, TrialRecord, WorkerDiedError, outcome, outcomes, trial_key


@pytest.fixture(scope="module")
def trials(tiny):
    short = replace(tiny, steps=10, warmup_steps=1)
    return [Trial(f"lr {lr:g}", replace(short, peak_lr=lr)) for lr in (1e-3, 3e-3, 1e-2, 3e-2)]


@pytest.fixture(scope="module")
def here(trials, data):
    """Outcomes in this process, without workers or a record."""
    return [outcome(trial, data) for trial in trials]


def losses(found):
    return [(o.name, o.loss, o.held_out) for o in found]


def remember(path, trials, found, data):
    """A record as a search leaves it that was interrupted after these trials."""
    record, fingerprint = TrialRecord(path), Shards.open(data, "train").fingerprint
    for trial, of_trial in zip(trials, found, strict=False):
        record.add(trial_key(trial.plan, fingerprint, Execution()), of_trial)


def test_an_outcome_is_reproducible_and_learned_something(trials, data, here):
    again = outcome(trials[2], data)
    assert losses([again]) == losses([here[2]])
    assert again.held_out < math.log(288) and again.seconds > 0


def test_workers_give_the_same_bits_as_this_process_in_any_order(trials, data, here, tmp_path):
    found = outcomes(list(reversed(trials)), data, tmp_path / "record.jsonl", workers=Processes(2))
    assert losses(found) == losses(reversed(here))


def test_a_search_goes_on_where_it_was_and_ends_the_same(trials, data, here, tmp_path, monkeypatch):
    record = tmp_path / "record.jsonl"
    remember(record, trials[:2], here, data)
    with record.open("a") as file:
        file.write('{"key": "to')  # torn by a kill
    found = outcomes(trials, data, record, workers=Processes(1))
    assert losses(found) == losses(here)
    monkeypatch.setattr(crew, "_Worker", lambda *_: pytest.fail("trained again"))
    assert outcomes(trials, data, record, workers=Processes(1)) == found
    assert len(TrialRecord(record).outcomes) == 4
    whole = [line for line in record.read_text().splitlines() if line.endswith("}")]
    assert len(whole) == 4 and len(record.read_text().splitlines()) == 5


def test_a_trial_of_another_name_is_still_the_same_trial(trials, data, here, tmp_path):
    record = tmp_path / "record.jsonl"
    remember(record, trials[:1], here, data)
    other = Trial("renamed", replace(trials[0].plan, name="renamed", reasons=("none",)))
    assert outcomes([other, other], data, record, workers=Processes(1)) == [here[0]._replace(name="renamed")] * 2


def test_what_decides_the_outcome_decides_the_key(tiny):
    keys = {
        trial_key(tiny, "a", Execution()),
        trial_key(replace(tiny, seed=1), "a", Execution()),
        trial_key(tiny, "b", Execution()),
        trial_key(tiny, "a", Execution("bfloat16")),
    }
    assert len(keys) == 4


def test_a_diverged_trial_is_infinite_and_survives_the_record(tiny, data, tmp_path):
    wild = replace(tiny, steps=6, warmup_steps=1, peak_lr=1e30, grad_clip=1e30)
    found = outcome(Trial("wild", wild), data)
    assert (found.loss, found.held_out) == (math.inf, math.inf)
    record = TrialRecord(tmp_path / "record.jsonl")
    record.add("key", found)
    assert json.loads(record.path.read_text())["loss"] is None
    assert TrialRecord(record.path).outcomes == {"key": found}


def test_a_killed_worker_is_told_by_the_name_of_its_trial(tiny, data, tmp_path):
    def kill_the_worker(*_):
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)

    endless = replace(tiny, steps=10**6)
    before = signal.signal(signal.SIGALRM, kill_the_worker)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(WorkerDiedError, match=r"'endless' was killed by signal 9.*record\.jsonl.*goes on"):
            outcomes([Trial("endless", endless)], data, tmp_path / "record.jsonl", workers=Processes(1))
    finally:
        signal.signal(signal.SIGALRM, before)


def test_an_interrupt_keeps_the_record_and_ends_the_workers(tiny, trials, data, here, tmp_path):
    record = tmp_path / "record.jsonl"
    remember(record, trials[:1], here, data)

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(RuntimeError) as error:
            outcomes([*trials[:1], Trial("endless", replace(tiny, steps=10**6))], data, record, workers=Processes(1))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert ending(error.value).code == STOPPED and str(record) in ending(error.value).line
    assert not [child for child in multiprocessing.active_children() if child.join(5) or child.is_alive()]
    assert len(TrialRecord(record).outcomes) == 1


@pytest.mark.parametrize(
    "line", ['{"loss": 1}', "[1]", '{"key": "a", "name": "b", "loss": "x", "held_out": 1, "seconds": 1}']
)
def test_a_file_that_is_no_record_is_refused(tmp_path, line):
    (tmp_path / "record.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match="no record of trials"):
        TrialRecord(tmp_path / "record.jsonl")


def test_what_does_not_fit_the_pack_is_refused_before_a_worker_starts(tiny, data, tmp_path):
    other = replace(tiny, architecture=replace(tiny.architecture, vocab_size=300))
    with pytest.raises(ValueError, match="vocabulary"):
        outcomes([Trial("other", other)], data, tmp_path / "record.jsonl", workers=Processes(1))
    with pytest.raises(ValueError, match="workers"):
        outcomes([], data, tmp_path / "record.jsonl", workers=Processes(0))
