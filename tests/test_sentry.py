"""A spoiled step is answered as the plan says, and afterwards nothing tells the run from one told to skip the same."""

import math
from dataclasses import dataclass, replace

import pytest
import torch

from cerebras_gpt import checkpoint
from cerebras_gpt.data.batches import PackedBatches
from cerebras_gpt.data.shards import Shards
from cerebras_gpt.distributed import World
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.plan.guard import Guard
from cerebras_gpt.record import read_metrics
from cerebras_gpt.train.execution import Execution, gradients
from cerebras_gpt.train.sentry import Sentry, batch_of, threshold
from cerebras_gpt.train.trainer import DivergedError, Hook, Trainer

GUARD = Guard(window=8, rewind_steps=3, skip_batches=4)


@dataclass
class Fault:
    """Spoils one tensor when the run first comes to a step: by (step, tensor, how)."""

    step: int
    tensor: str
    how: float
    n_steps: int = 1
    done: int = 0

    def is_now(self, step):
        if self.done < self.n_steps and step >= self.step:
            self.done += 1
            return True
        return False


def trainer(plan, data, run, fault=None):
    model = initialize(GPT(plan.architecture, plan.parametrization), torch.Generator().manual_seed(plan.seed))
    batches = PackedBatches(Shards.open(data, "train"), plan.architecture.seq_len, plan.batch_size, plan.seed)
    made = Trainer(plan, model, batches, run, Execution("float32", 4), World())
    if fault is not None:
        spoil(made, fault)
    return made


def spoil(made, fault):
    """Loss and gradient after the backward pass, weight and moment after the update."""

    def spoiled(model, *rest):
        loss = gradients(model, *rest)
        if fault.tensor in ("loss", "gradient") and fault.is_now(made.step):
            if fault.tensor == "loss":
                return loss * fault.how
            model.norm.weight.grad[0] *= fault.how
        return loss

    def after(trainer):
        if fault.tensor in ("weight", "moment") and fault.is_now(trainer.step):
            weight = trainer.model.norm.weight
            tensor = weight.data if fault.tensor == "weight" else trainer.adamw.state[weight]["exp_avg"]
            tensor[0] = fault.how

    made.gradients = spoiled
    made.hooks = [Hook(1, after)]


def state(run):
    path = checkpoint.resolve(run)
    return [(path / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")]


def decisions(run):
    return [row for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "guard"]


@pytest.fixture(scope="module")
def plan(tiny):
    return replace(tiny, steps=20, warmup_steps=2, saves=4)


NAN, INF = math.nan, math.inf
FAULTS = {
    "NaN loss": (Fault(12, "loss", NAN), "not_finite"),
    "Inf loss": (Fault(12, "loss", INF), "not_finite"),
    "NaN gradient": (Fault(12, "gradient", NAN), "not_finite"),
    "Inf gradient": (Fault(12, "gradient", INF), "not_finite"),
    "100 x loss, 1 step": (Fault(12, "loss", 100.0), "spike"),
    "100 x loss, 5 steps": (Fault(12, "loss", 100.0, n_steps=5), "spike"),
}
LASTING = {
    "NaN weight": (Fault(12, "weight", NAN), "not_finite"),
    "Inf moment": (Fault(12, "moment", INF), "not_finite"),
    "flipped exponent of a weight": (Fault(12, "weight", 3e4), "spike"),
    "NaN moment just before a save": (Fault(15, "moment", NAN), "not_finite"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_skipping_equals_a_run_told_to_skip_the_same_batches(tmp_path, plan, data, name):
    fault, kind = FAULTS[name]
    guarded = replace(plan, guard=replace(GUARD, **{kind: "skip"}))
    trainer(guarded, data, tmp_path / "guarded", replace(fault)).run()
    told = replace(plan, guard=Guard(skipped=((12, 12 + fault.n_steps),)))
    trainer(told, data, tmp_path / "told").run()
    assert state(tmp_path / "guarded") == state(tmp_path / "told")
    assert [row["batch"] for row in decisions(tmp_path / "guarded")] == list(range(12, 12 + fault.n_steps))


@pytest.mark.parametrize("name", FAULTS | LASTING)
def test_rewinding_equals_a_run_told_to_skip_the_same_batches(tmp_path, plan, data, name):
    fault, kind = (FAULTS | LASTING)[name]
    guarded = replace(plan, guard=replace(GUARD, **{kind: "rewind"}))
    trainer(guarded, data, tmp_path / "guarded", replace(fault)).run()
    rows = decisions(tmp_path / "guarded")
    assert rows and all(row["answer"] == "rewind" and row["step"] <= 10 for row in rows)
    told = replace(plan, guard=Guard(skipped=tuple(tuple(row["skipped"]) for row in rows)))
    trainer(told, data, tmp_path / "told").run()
    assert state(tmp_path / "guarded") == state(tmp_path / "told")


@pytest.mark.parametrize("name", FAULTS | LASTING)
def test_halting_ends_the_run_and_nothing_spoiled_is_saved(tmp_path, plan, data, name):
    fault, kind = (FAULTS | LASTING)[name]
    with pytest.raises(DivergedError):
        trainer(replace(plan, guard=replace(GUARD, **{kind: "halt"})), data, tmp_path, replace(fault)).run()
    path = checkpoint.resolve(tmp_path)
    assert path.name == "step_00000010"


def test_a_run_that_was_killed_after_a_decision_ends_the_same(tmp_path, plan, data):
    guarded = replace(plan, guard=replace(GUARD, spike="rewind"))
    trainer(guarded, data, tmp_path / "whole", Fault(12, "loss", 100.0)).run()
    broken = trainer(guarded, data, tmp_path / "killed", Fault(12, "loss", 100.0))
    note = broken.note

    def killed(*figures):
        note(*figures)
        if decisions(tmp_path / "killed") and broken.step == 11:
            raise KeyboardInterrupt

    broken.note = killed
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    again = trainer(guarded, data, tmp_path / "killed")
    again.resume()
    again.run()
    assert state(tmp_path / "killed") == state(tmp_path / "whole")
    assert decisions(tmp_path / "killed") == decisions(tmp_path / "whole")


def test_what_no_decision_mends_halts_at_last(tmp_path, plan, data):
    guarded = replace(plan, guard=replace(GUARD, not_finite="skip", most=3))
    with pytest.raises(DivergedError, match="step 13"):
        trainer(guarded, data, tmp_path, Fault(12, "weight", NAN)).run()
    assert len(decisions(tmp_path)) == 3


def test_an_undisturbed_run_does_not_know_that_it_is_guarded(tmp_path, plan, data):
    guarded = replace(plan, guard=Guard(not_finite="rewind", spike="rewind", window=8))
    trainer(guarded, data, tmp_path / "guarded").run()
    trainer(plan, data, tmp_path / "plain").run()
    assert state(tmp_path / "guarded") == state(tmp_path / "plain")


def test_the_threshold_is_not_moved_by_a_spike():
    losses = [3.0 + 0.01 * (n % 7) for n in range(64)]
    assert threshold([*losses, 300.0], 6) == pytest.approx(threshold(losses, 6), rel=0.01)
    assert threshold(losses, 6) > max(losses)


def test_early_steps_are_no_spikes():
    sentry = Sentry(Guard(spike="skip", window=8))
    assert sentry.cause(1000.0, 1.0, World(), "cpu") is None
    sentry.losses.extend([3.0] * 4)
    assert sentry.cause(1000.0, 1.0, World(), "cpu") == "spike"
    assert sentry.cause(math.nan, 1.0, World(), "cpu") == "not finite"


def test_batches_that_are_left_out_are_left_out():
    spans = ((0, 2), (5, 6), (8, 11))
    left = [batch for batch in range(30) if not any(first <= batch < end for first, end in spans)]
    assert [batch_of(step, spans) for step in range(len(left))] == left
