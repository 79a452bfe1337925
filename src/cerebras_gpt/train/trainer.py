"""The one Trainer: batches in, updates, a record and checkpoints out; killed anywhere, it goes on to the same bits."""

import json
import logging
import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cerebras_gpt import checkpoint
from cerebras_gpt.checkpoint.tensors import load_tensors, take_part
from cerebras_gpt.data.batches import Batch
from cerebras_gpt.distributed import World, whole
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.record import DECISION, Metrics, Steps
from cerebras_gpt.train.endings import DivergedError, StopAskedError, StoppedError
from cerebras_gpt.train.execution import Execution, gradients
from cerebras_gpt.train.feed import Batches, Feed
from cerebras_gpt.train.optim import AdamW, learning_rate, optimizer, set_learning_rate, state_tensors, weights
from cerebras_gpt.train.saving import SMALL, Files, Saver
from cerebras_gpt.train.sentry import Cause, Sentry, batch_of

log = logging.getLogger("cerebras_gpt")


class Hook(NamedTuple):
    """What else happens every so many steps, and at the last one."""

    every: int
    run: Callable[["Trainer"], None]


@dataclass
class Trainer:
    """Trains a model by a plan; every result is a function of plan, initial weights and batches.

    What the plan's guard decides is a part of the state, as are the hooks that are still to run after the last step.
    """

    plan: Plan
    model: GPT
    batches: Batches
    run_folder: Path
    execution: Execution
    world: World
    hooks: Sequence[Hook] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    """Further files for every checkpoint (tokenizer.json), so that it stands on its own."""
    flops_per_second: float = math.inf
    """Measured peak of this machine, the 1.0 of `flops_share`."""
    flops_per_token: float = 0.0
    asked_to_stop: Callable[[], bool] = lambda: False
    gradients: Callable[[GPT, Batch, Execution, World], Tensor] = gradients
    """How a batch becomes gradients and a loss; what tests let go wrong."""
    optimizer: Callable[[GPT, Plan], AdamW] = optimizer

    step: int = 0
    """Updates done."""
    seconds: float = 0.0
    """Time spent in updates, all sessions of the run together."""
    hooks_left: int = 0
    """The last so many hooks have not run yet at this step."""

    def __post_init__(self) -> None:
        self.execution.placed(self.model).train()
        self.feed = Feed(self.batches, self.execution.device)
        self.adamw = self.optimizer(self.model, self.plan)
        self.metrics = Metrics(self.run_folder / "metrics.jsonl")
        self.saver = Saver(self.run_folder, sys.maxsize if self.execution.is_sharded else SMALL)
        self.sentry = Sentry(self.plan.guard)
        self.every = max(1, self.plan.steps // self.plan.saves)
        self.saved = (0, 0)
        if self.world.size == 1:  # many processes finish their common step
            # Called in every backward pass: a signal is heard between micro-batches, not only after minutes of a step.
            learned = (parameter for parameter in self.model.parameters() if parameter.requires_grad)
            next(learned).register_post_accumulate_grad_hook(self.poll)

    def run(self) -> None:
        """Goes on from where it is to the last step.

        Raises DivergedError, StoppedError (after saving), or OSError when the disk did not take the last checkpoint
        (older ones are untouched); a failure before that is told, and the next save is the next try.
        """
        with Steps("training", self.plan.steps, self.world.is_main) as self.progress, self.saver:
            if self.plan.guard.rewinds and self.step == 0:
                self.save()
            while self.is_unfinished:
                stopping = self.go_on()
                where = (self.step, self.hooks_left)
                is_regular = self.step % self.every == 0 or not self.is_unfinished
                if (stopping or is_regular) and self.saved != where:
                    self.save()
                if stopping:
                    self.finish_saving()
                    saved = f"and saved at step {self.step}" if self.step else "before the first step"
                    raise StoppedError(f"stopped {saved}; run the same command again to go on")
            self.finish_saving()
            self.metrics.write_waiting()

    @property
    def is_unfinished(self) -> bool:
        """Whether an update or a hook is still to come."""
        return self.step < self.plan.steps or self.hooks_left > 0

    def go_on(self) -> bool:
        """One update and its hooks, or what an interruption left of them; tells whether somebody asked to stop."""
        try:
            if not self.hooks_left:
                self.update()
            self.call_hooks()
        except StopAskedError:
            self.adamw.let_go()
        self.tell_failure()
        return self.world.any(self.asked_to_stop() and self.is_unfinished)

    def poll(self, *_: object) -> None:
        """Breaks off what can be done again, when somebody asks to stop; many processes finish their common work."""
        if self.world.size == 1 and self.asked_to_stop():
            raise StopAskedError

    def update(self) -> None:
        """One optimizer step on the global batch of this step, if the guard finds nothing wrong with it."""
        started = time.perf_counter()
        index = batch_of(self.step, self.sentry.skipped)
        rows = self.execution.rows(self.plan.batch_size, self.world)
        found = self.gradients(self.model, self.feed.take(index, rows), self.execution, self.world)
        self.feed.prepare(index + 1, rows)
        loss = found.item()
        norm = whole(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.grad_clip)).item()
        cause = self.sentry.cause(loss, norm, self.world, self.execution.device)
        if cause is not None:
            self.adamw.let_go()
            self.respond(cause, index, f"step {self.step + 1}: loss {loss:.4g}, gradient norm {norm:.4g}")
            return
        rate = learning_rate(self.plan, self.step + 1)
        set_learning_rate(self.adamw, rate)
        self.adamw.step()
        self.adamw.let_go()
        self.step += 1
        self.hooks_left = len(self.hooks)
        self.sentry.losses.append(loss)
        self.note(loss, rate, norm, time.perf_counter() - started)

    def note(self, loss: float, rate: float, norm: float, seconds: float) -> None:
        """Records one update and shows it."""
        self.seconds += seconds
        speed = self.plan.tokens_per_step / seconds
        share = speed * self.flops_per_token / self.flops_per_second
        if self.world.is_main:
            self.metrics.write(
                "train",
                step=self.step,
                tokens=self.tokens,
                loss=loss,
                lr=rate,
                grad_norm=norm,
                tokens_per_second=round(speed, 1),
                flops_share=round(share, 4),
                seconds=round(self.seconds, 3),
            )
        of_peak = f"  {share:.0%} of peak" if share else ""  # where it is known what a token costs
        self.progress.show(self.step, f"loss {loss:.3f}  {speed:,.0f} tokens/s{of_peak}")

    @property
    def tokens(self) -> int:
        """Tokens seen so far."""
        return self.step * self.plan.tokens_per_step

    def call_hooks(self) -> None:
        """Runs the hooks that are left and due, at every multiple of theirs and at the last step."""
        for every, run in self.hooks[len(self.hooks) - self.hooks_left :]:
            if self.step % every == 0 or self.step == self.plan.steps:
                run(self)
            self.hooks_left -= 1
        self.hooks_left = 0

    def respond(self, cause: Cause, batch: int, what: str) -> None:
        """Does what the guard says about a spoiled step, and records it; raises DivergedError where nothing helps."""
        answer, at = self.sentry.answer(cause), self.step
        if answer == "halt":
            raise DivergedError(
                f"{what}; lower peak_lr (now {self.plan.peak_lr:g}) or lengthen warmup_steps ({self.plan.warmup_steps})"
            )
        first = batch if answer == "skip" else self.rewind()
        end = batch + 1 if answer == "skip" else max(batch + 1, first + self.plan.guard.skip_batches)
        self.sentry.skip(first, end)
        if self.world.is_main:
            facts = {"at": at, "cause": cause, "batch": batch, "answer": answer, "skipped": [first, end]}
            self.metrics.write(DECISION, step=self.step, **facts)
            self.progress.say(f"warning: {what} ({cause}); batches {first} to {end - 1} are left out")
        if answer == "rewind":
            self.save()

    def rewind(self) -> int:
        """Takes up an older checkpoint, the same in every process; gives the batch that would come next."""
        found = None
        if self.world.is_main:
            self.saver.wait()
            found = checkpoint.regular(self.run_folder, self.step - self.plan.guard.rewind_steps, self.every)
            for path in checkpoint.checkpoints(self.run_folder):
                if found is not None and path > found:  # of a course that the run does not take
                    shutil.rmtree(path)
        found = self.agreed(found)
        if found is None:
            raise DivergedError(f"step {self.step}: there is no checkpoint to go back to; lower peak_lr")
        skipped, n_decisions, seconds = self.sentry.skipped, self.sentry.n_decisions, self.seconds
        self.load(found)
        self.sentry.skipped, self.sentry.n_decisions, self.seconds = skipped, n_decisions, seconds
        if self.world.is_main:
            self.metrics.cut(self.step, n_decisions)
        return batch_of(self.step, skipped)

    def save(self) -> None:
        """Writes a checkpoint, of sound numbers only; the first process writes, the others give it their shares."""
        files: Files = {
            "model.safetensors": weights(self.model),
            "optimizer.safetensors": state_tensors(self.adamw, self.model),
        }
        broken = next((name for named in files.values() for name in named if not named[name].isfinite().all()), None)
        if self.world.any(broken is not None):
            self.respond_to_broken(broken)
            return
        self.saved = (self.step, self.hooks_left)
        if self.world.is_main:
            self.saver.wait()
            self.tell_failure()
            state = {"step": self.step, "seconds": self.seconds, "hooks_left": self.hooks_left, **self.sentry.state()}
            texts = {"plan.json": self.plan.to_json(), "trainer.json": json.dumps(state)}
            texts["model.json"] = checkpoint.model_json(self.model)
            last = self.step // self.every * self.every
            keep = (last - self.every, last) if self.plan.guard.rewinds else ()
            self.saver.save(self.step, {**texts, **self.texts}, files, keep)
        else:
            take_part(files)

    def respond_to_broken(self, name: str | None) -> None:
        """Goes back, if the guard may, when a weight or a moment is not finite; no skipped batch would mend that."""
        what = f"step {self.step}: a weight is no longer finite ({name})"
        if self.plan.guard.not_finite != "rewind":
            raise DivergedError(f"{what}; lower peak_lr ({self.plan.peak_lr:g})")
        self.respond("not finite", batch_of(self.step - 1, self.sentry.skipped), what)

    def tell_failure(self) -> None:
        """Says what the disk did not take; training goes on, and the next save is the next try."""
        error = self.saver.failure()
        if error is not None:
            self.saved = (-1, 0)
            log.warning("a checkpoint was not written (%s: %s); training goes on", error.filename, error.strerror)
            self.metrics.write("save_failed", step=self.step, path=str(error.filename), error=str(error.strerror))

    def finish_saving(self) -> None:
        """Waits for the last checkpoint; raises the disk's OSError if it was not written."""
        self.saver.wait()
        error = self.saver.failure()
        if error is not None:
            raise error

    def resume(self) -> None:
        """Takes up the newest checkpoint that verifies; without one it starts at step 0."""
        path = self.agreed(checkpoint.newest(self.run_folder) if self.world.is_main else None)
        if path is not None:
            self.load(path)
        if self.world.is_main:
            self.metrics.cut(self.step, self.sentry.n_decisions)

    def agreed(self, path: Path | None) -> Path | None:
        """The folder that the first process names, whatever the others say."""
        name = self.world.text_from_main(str(path or ""))
        return Path(name) if name else None

    def load(self, path: Path) -> None:
        """Takes up a checkpoint, which only the first process needs to see."""
        load_tensors(path / "model.safetensors", weights(self.model), self.world)
        load_tensors(path / "optimizer.safetensors", state_tensors(self.adamw, self.model), self.world)
        text = (path / "trainer.json").read_text("utf-8") if self.world.is_main else ""
        state = json.loads(self.world.text_from_main(text))
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.hooks_left = int(state.get("hooks_left", 0))
        self.sentry.take(state)
        self.saved = (self.step, self.hooks_left)
