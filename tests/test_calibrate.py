"""The execution is chosen by measurement, once for a run."""

import dataclasses
from dataclasses import dataclass

import pytest
import torch

from cerebras_gpt.plan.memory import peak_bytes
from cerebras_gpt.train import calibrate, speed
from cerebras_gpt.train.calibrate import (
    Calibration,
    calibrated,
    candidates,
    choice_key,
    fastest,
    keep,
    ranking,
    remembered,
)
from cerebras_gpt.train.execution import Execution
from cerebras_gpt.train.speed import Speed, Stopwatch, TrainingStep, measure_peak, measure_speed

QUICK = Stopwatch(0.0, fewest=1)


def test_the_stopwatch_gives_the_median_after_the_warm_calls(monkeypatch):
    moments = iter([0.0, 5.0, 10.0, 11.0, 20.0, 22.0])  # calls of 5, 1 and 2 seconds
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(moments))
    n_calls = []
    assert Stopwatch(1.0).time(lambda: n_calls.append(1)) == 2.0
    assert len(n_calls) == speed.WARM_STEPS + 3


def test_candidates_differ_and_fit_the_batch(tiny):
    found = candidates(tiny)
    assert {execution.dtype for execution in found} == {"bfloat16", "float32"}
    assert all(1 <= execution.micro_batch_size <= tiny.batch_size for execution in found)
    long = dataclasses.replace(tiny, architecture=dataclasses.replace(tiny.architecture, seq_len=16384))
    assert {execution.micro_batch_size for execution in candidates(long)} == {1}


def test_fewer_sequences_at_a_time_where_memory_ends(tiny, torch_alone, monkeypatch):
    one = peak_bytes(tiny.architecture, 1, n_micro_batches=4)
    monkeypatch.setattr("cerebras_gpt.train.device.memory_at_hand", lambda: one)
    assert {execution.micro_batch_size for execution in candidates(tiny)} == {1}
    assert not any(execution.recompute for execution in candidates(tiny))
    monkeypatch.setattr("cerebras_gpt.train.device.memory_at_hand", lambda: one - 1)
    (left,) = candidates(tiny)
    assert (left.dtype, left.recompute) == ("bfloat16", True)
    n_micro_batches = -(-tiny.batch_size // left.micro_batch_size)
    assert peak_bytes(tiny.architecture, left.micro_batch_size, 2, n_micro_batches, recompute=True) < one
    least = peak_bytes(tiny.architecture, 1, recompute=True)
    monkeypatch.setattr("cerebras_gpt.train.device.memory_at_hand", lambda: least - 1)
    with pytest.raises(ValueError, match="too little memory: tiny needs"):
        candidates(tiny)


def test_speed_and_peak_are_measured(tiny):
    assert measure_speed(tiny, Execution("float32", 4), QUICK).tokens_per_second > 0
    assert measure_peak(Execution("float32", 4), seconds=0.0, size=64) > 0


@dataclass
class Busy:
    """A machine whose true speeds are known, and that other work slows from one measurement on up to another."""

    speeds: dict[str, float]
    slow: range
    factor: float = 3.0
    measured: int = 0

    def __call__(self, plan, execution, _):
        self.measured += 1
        rate = self.speeds[execution.dtype] - (execution.micro_batch_size == 1)
        return Speed(rate / (self.factor if self.measured - 1 in self.slow else 1.0), 0.0)


def on(monkeypatch, machine):
    monkeypatch.setattr(calibrate, "measure_peak", lambda execution: 1e9)
    monkeypatch.setattr(calibrate, "measure_speed", machine)
    return machine


@pytest.mark.parametrize("first", range(6))
@pytest.mark.parametrize("length", range(7))
def test_other_work_beside_some_measurements_decides_nothing(tiny, monkeypatch, first, length):
    on(monkeypatch, Busy({"bfloat16": 534.0, "float32": 261.0}, range(first, first + length)))
    assert ranking(tiny, QUICK).trials[0].execution == candidates(tiny)[0]


def test_a_quiet_machine_needs_two_turns_and_a_single_candidate_one(tiny, monkeypatch):
    machine = on(monkeypatch, Busy({"bfloat16": 534.0, "float32": 261.0}, range(0)))
    assert ranking(tiny, QUICK).is_confirmed and machine.measured == 2 * len(candidates(tiny))
    monkeypatch.setattr(calibrate, "candidates", lambda plan: [Execution()])
    assert ranking(tiny, QUICK).is_confirmed and machine.measured == 2 * len(candidates(tiny)) + 1


def test_a_trial_tells_the_mean_of_its_turns(tiny, monkeypatch):
    on(monkeypatch, Busy({"bfloat16": 90.0, "float32": 20.0}, range(1)))
    assert ranking(tiny, QUICK).trials[0].speed.tokens_per_second == pytest.approx(60.0)


def test_a_choice_that_no_second_turn_confirms_is_not_remembered(tiny, tmp_path, monkeypatch):
    order = iter([5.0, 1.0, *[1.0, 4.0] * 3])
    monkeypatch.setattr(calibrate, "measure_peak", lambda execution: 1e9)
    monkeypatch.setattr(calibrate, "measure_speed", lambda *_: Speed(next(order), 0.0))
    assert remembered(tiny, QUICK, tmp_path / "cache").execution == candidates(tiny)[0]
    assert next(order, None) is None and not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("before", "now"), [(3.0, 1.0), (1.0, 3.0)])
def test_a_speed_far_from_the_remembered_one_makes_the_choice_anew(tiny, tmp_path, monkeypatch, before, now):
    always = range(1000)
    on(monkeypatch, Busy({"bfloat16": 534.0, "float32": 261.0}, always, before))
    chosen = remembered(tiny, QUICK, tmp_path).execution
    machine = on(monkeypatch, Busy({"bfloat16": 534.0, "float32": 261.0}, always, now))
    assert remembered(tiny, QUICK, tmp_path).execution == chosen and machine.measured > 1
    machine.measured = 0
    assert remembered(tiny, QUICK, tmp_path).execution == chosen and machine.measured == 1


@pytest.mark.parametrize("winner", ["bfloat16", "float32"])
def test_the_fastest_candidate_wins_and_tells_the_time_of_the_plan(tiny, monkeypatch, winner):
    monkeypatch.setattr(calibrate, "measure_peak", lambda execution: 1e9)
    monkeypatch.setattr(
        calibrate, "measure_speed", lambda plan, execution, _: Speed(100 * (1 + (execution.dtype == winner)), 0.25)
    )
    found = fastest(tiny, QUICK)
    assert found.execution.dtype == winner
    assert (found.tokens_per_second, found.peak_flops) == (200, 1e9)
    assert found.predicted_seconds == tiny.tokens / 200
    assert found.seconds_between == (found.predicted_seconds / 1.25, found.predicted_seconds * 1.25)


def test_a_run_keeps_its_first_calibration(tiny, tmp_path, monkeypatch):
    first = Calibration(Execution("bfloat16", 2), 123.4, 5e9, 6.7)
    monkeypatch.setattr(calibrate, "remembered", lambda *_: first)
    assert calibrated(tiny, tmp_path / "run", QUICK) == first
    monkeypatch.setattr(calibrate, "remembered", lambda *_: pytest.fail("measured again"))
    assert calibrated(tiny, tmp_path / "run", QUICK) == first


def test_what_is_kept_comes_back(tmp_path):
    calibration = Calibration(Execution("float32", 3, "cpu"), 0.1 + 0.2, 1e12, 3.0)
    keep(calibration, tmp_path)
    assert calibrated(None, tmp_path, QUICK) == calibration


def quick_speed(monkeypatch, tokens_per_second):
    """Real choices, without the waiting."""
    measured = []

    def speed(plan, execution, _):
        measured.append(execution)
        return Speed(tokens_per_second[execution.dtype], 0.0)

    monkeypatch.setattr(calibrate, "measure_peak", lambda execution: 1e9)
    monkeypatch.setattr(calibrate, "measure_speed", speed)
    return measured


def test_a_machine_remembers_its_choice_and_measures_only_that(tiny, tmp_path, monkeypatch):
    measured = quick_speed(monkeypatch, {"float32": 200.0, "bfloat16": 100.0})
    first = remembered(tiny, QUICK, tmp_path / "cache")
    assert first.execution.dtype == "float32" and set(measured) == set(candidates(tiny))
    measured.clear()
    assert remembered(tiny, QUICK, tmp_path / "cache") == first
    assert measured == [first.execution]


def test_another_shape_or_damage_or_less_memory_is_a_new_choice(tiny, torch_alone, tmp_path, monkeypatch):
    measured = quick_speed(monkeypatch, {"float32": 100.0, "bfloat16": 200.0})
    chosen = remembered(tiny, QUICK, tmp_path).execution
    remembered(dataclasses.replace(tiny, batch_size=2 * tiny.batch_size), QUICK, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / f"{choice_key(tiny)}.json").write_text("not a choice")
    measured.clear()
    assert remembered(tiny, QUICK, tmp_path).execution == chosen and len(measured) > 1
    one = peak_bytes(tiny.architecture, 1, n_micro_batches=4)
    monkeypatch.setattr("cerebras_gpt.train.device.memory_at_hand", lambda: one)
    assert chosen.micro_batch_size > 1 and remembered(tiny, QUICK, tmp_path).execution.micro_batch_size == 1


def test_a_place_that_cannot_be_written_to_costs_only_time(tiny, tmp_path, monkeypatch):
    quick_speed(monkeypatch, {"float32": 100.0, "bfloat16": 200.0})
    (tmp_path / "file").write_text("in the way")
    assert remembered(tiny, QUICK, tmp_path / "file" / "cache").execution.dtype == "bfloat16"


def test_a_large_batch_is_timed_by_its_parts(tiny):
    large = dataclasses.replace(tiny, batch_size=1000)
    step = TrainingStep(large, Execution("float32", 4))
    assert step.n_micro_batches == 250 and len(step.batch.ids) == 4


def test_a_gpu_leaves_out_what_it_cannot_do(tiny, monkeypatch):
    wide, narrow = (Execution("bfloat16", n, "cuda") for n in (8, 2))

    def speed(plan, execution, _):
        if execution == wide:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Speed(10.0, 0.0)

    monkeypatch.setattr(calibrate, "measure_peak", lambda execution: 1e9)
    monkeypatch.setattr(calibrate, "measure_speed", speed)
    monkeypatch.setattr(calibrate, "candidates", lambda plan: [wide, narrow])
    assert fastest(tiny, QUICK).execution == narrow
    monkeypatch.setattr(calibrate, "candidates", lambda plan: [wide])
    with pytest.raises(ValueError, match=r"cannot train tiny \(CUDA out of memory\)"):
        fastest(tiny, QUICK)


@pytest.mark.parametrize(("steps", "n"), [(10, 2), (10**9, 4)])
def test_a_gpu_compiles_where_a_run_is_long_enough(tiny, monkeypatch, steps, n):
    monkeypatch.setattr(calibrate, "device", lambda: "cuda")
    monkeypatch.setattr(calibrate, "fast_dtype", lambda: "bfloat16")
    plan = dataclasses.replace(tiny, steps=steps, batch_size=4096)
    found = candidates(plan)
    assert len(found) == n and [one.compiled for one in found] == [True] * (n - 2) + [False] * 2
    assert [one.micro_batch_size for one in found[-2:]] == [4096, 1024]
