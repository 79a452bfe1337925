"""T11: numbers that are not finite, and spikes: the policy of the plan is obeyed, and nothing unsound is saved."""

import json
from dataclasses import replace
from functools import partial

import safetensors.torch
import torch

from benchmarks.faults.job import EVERY, Job, beside, figures, reference_job, saved_step, state
from benchmarks.faults.plant import on_batches, on_rows
from cerebras_gpt import checkpoint
from cerebras_gpt.data.batches import Batch
from cerebras_gpt.errors import DIVERGED
from cerebras_gpt.plan.guard import Guard
from cerebras_gpt.train.trainer import Hook

STEPS, AT = 60, 37
POLICIES = {
    "halt": Guard(not_finite="halt", spike="halt", window=16),
    "skip": Guard(not_finite="skip", spike="skip", window=16),
    "rewind": Guard(not_finite="rewind", spike="rewind", window=16, rewind_steps=10, skip_batches=3),
}


def loss_becomes(value, loss, parameters):
    """Another loss, the gradient as it was."""
    return torch.full_like(loss, value)


def gradient_becomes(value, loss, parameters):
    """One element of one gradient."""
    parameters[-1].grad.view(-1)[0] = value
    return loss


def times(factor, loss, parameters):
    """Loss and gradients many times as large."""
    for parameter in parameters:
        parameter.grad.mul_(factor)
    return loss * factor


def noise(batch):
    """A batch whose targets have nothing to do with its inputs."""
    made = torch.Generator().manual_seed(0)
    return Batch(batch.ids, torch.randint(260, 288, batch.targets.shape, generator=made))


def flip(trainer, bit=30):
    """One bit of one weight: the highest of the exponent."""
    weight = trainer.model.head_table.data.view(-1)[:1].view(torch.int32)
    weight ^= 1 << bit


def moment(name, value, trainer):
    """One element of an optimizer's moment."""
    first = next(iter(trainer.adamw.state.values()))
    first[name].view(-1)[0] = value


def weight_becomes(value, trainer):
    """One element of a weight."""
    trainer.model.head_table.data.view(-1)[0] = value


def once(step, change):
    """A hook that changes something after a step, the first time that the step is done."""
    done = []

    def run(trainer):
        if trainer.step == step and not done:
            done.append(1)
            change(trainer)

    return [Hook(1, run)]


def faults():
    """Hooks and what is planted in the child, by the name of the fault, with the policies that can mend it."""
    batch, nan, inf = partial(on_batches, {AT}), float("nan"), float("inf")
    both = ("skip", "rewind")
    return {
        "NaN loss": ([], partial(batch, partial(loss_becomes, nan)), both),
        "infinite loss": ([], partial(batch, partial(loss_becomes, inf)), both),
        "NaN gradient": ([], partial(batch, partial(gradient_becomes, nan)), both),
        "infinite gradient": ([], partial(batch, partial(gradient_becomes, inf)), both),
        "loss and gradient times 100, one step": ([], partial(batch, partial(times, 100.0)), both),
        "times 100, five steps": ([], partial(on_batches, set(range(AT, AT + 5)), partial(times, 100.0)), both),
        "corrupt batch": ([], partial(on_rows, {AT}, noise), both),
        "NaN in the first moment": (once(AT, partial(moment, "exp_avg", nan)), None, ("rewind",)),
        "infinite second moment": (once(AT, partial(moment, "exp_avg_sq", inf)), None, ("rewind",)),
        "flipped bit of a weight": (once(AT, flip), None, ("rewind",)),
        "NaN weight before a save": (once(40, partial(weight_becomes, nan)), None, ("rewind",)),
        "every batch from there on": ([], partial(on_batches, range(AT, 10**6), partial(loss_becomes, nan)), ()),
    }


def unsound(run):
    """Names of saved tensors that are not finite, in any checkpoint of a run."""
    return [
        f"{path.name}/{name}"
        for path in checkpoint.checkpoints(run)
        for file in path.glob("*.safetensors")
        for name, tensor in safetensors.torch.load_file(file).items()
        if not tensor.isfinite().all()
    ]


def left_out(run):
    """The batches that the run says it left out."""
    state_of = json.loads((checkpoint.newest(run) / "trainer.json").read_text())
    found = state_of.get("skipped", state_of.get("sentry", {}).get("skipped", []))
    return tuple((int(first), int(end)) for first, end in found)


def guarded(job, guard):
    """The same job under a policy."""
    return Job(replace(job.plan, guard=guard), job.data, job.execution)


def mended(job, run, code, folder):
    """What is wrong with a run that should have gone on: it must equal one that was told to leave the batches out."""
    if code:
        return [f"exit code {code}: {beside(run, 'err').read_text()[-300:]}"]
    spans = left_out(run)
    if not any(first <= AT + 2 and end >= AT for first, end in spans):
        return [f"left out {spans}"]
    told = folder / ("told-" + "-".join(f"{first}-{end}" for first, end in spans))
    if not told.exists():
        guarded(job, Guard(skipped=spans)).finish(told)
    found = [] if figures(run) == figures(told) else ["figures differ from those of a run told to leave them out"]
    same = state(checkpoint.newest(run)) == state(checkpoint.newest(told))
    return found + ([] if same else ["weights differ from those of a run told to leave them out"])


def halted(run, code):
    """What is wrong with a run that should have ended."""
    found = [] if code == DIVERGED else [f"exit code {code}, not {DIVERGED}"]
    if len(beside(run, "err").read_text().strip().splitlines()[-1]) < 20:
        found.append("no line says why")
    return found + ([] if saved_step(run) % EVERY == 0 and saved_step(run) >= 20 else [f"saved {saved_step(run)}"])


def campaign(report, folder, seed, policies=tuple(POLICIES)):
    """Every fault under every policy."""
    job = reference_job(folder, steps=STEPS)
    obeyed = {policy: 0 for policy in policies}
    for number, (name, (hooks, setup, mends)) in enumerate(faults().items()):
        for policy in policies:
            run = folder / f"numbers-{number}-{policy}"
            code = guarded(job, POLICIES[policy]).finish(run, hooks, setup)
            problems = mended(job, run, code, folder) if policy in mends else halted(run, code)
            problems += [f"saved a tensor that is not finite: {found}" for found in unsound(run)[:1]]
            obeyed[policy] += not problems
            report.case(f"{name}, {policy}", problems, code=code)
    report.figures["obeyed"] = {policy: f"{n}/{len(faults())}" for policy, n in obeyed.items()}
