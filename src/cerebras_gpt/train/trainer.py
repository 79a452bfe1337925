"""The one Trainer: batches in, updates, a record and checkpoints out; killed anywhere, it goes on to the same bits."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from cerebras_gpt import checkpoint
from cerebras_gpt.data.batches import Batch
from cerebras_gpt.distributed import World, whole
from cerebras_gpt.errors import DIVERGED, STOPPED
from cerebras_gpt.files import read_json
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.record import Metrics, Steps
from cerebras_gpt.train.execution import Execution, gradients
from cerebras_gpt.train.optim import learning_rate, optimizer, prepare_state, set_learning_rate, state_tensors, weights


class Batches(Protocol):
    """A pure function from the step to the rows of its global batch."""

    def rows(self, step: int, rows: Sequence[int]) -> Batch:
        """The given rows of the batch of a step, counted from 0."""


class Hook(NamedTuple):
    """What else happens every so many steps, and at the last one."""

    every: int
    run: Callable[["Trainer"], None]


class DivergedError(ValueError):
    """The loss or the gradient is no longer a finite number."""

    exit_code = DIVERGED


class StoppedError(RuntimeError):
    """Somebody asked the run to stop; it has saved itself."""

    exit_code = STOPPED


@dataclass
class Trainer:
    """Trains a model by a plan; every result is a function of plan, initial weights and batches."""

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

    step: int = 0
    """Updates done."""
    seconds: float = 0.0
    """Time spent in updates, all sessions of the run together."""

    def __post_init__(self) -> None:
        self.model.to(self.execution.device).train()
        self.adamw = optimizer(self.model, self.plan)
        prepare_state(self.adamw)
        self.metrics = Metrics(self.run_folder / "metrics.jsonl")

    def run(self) -> None:
        """Goes on from where it is to the last step.

        Raises DivergedError, StoppedError (after saving), or OSError of the disk (older checkpoints are untouched).
        """
        every = max(1, self.plan.steps // self.plan.saves)
        with Steps("training", self.plan.steps, self.world.is_main) as self.progress:
            while self.step < self.plan.steps:
                self.update()
                self.call_hooks()
                stopping = self.world.any(self.asked_to_stop()) and self.step < self.plan.steps
                if stopping or self.step % every == 0 or self.step == self.plan.steps:
                    self.save()
                if stopping:
                    raise StoppedError(f"stopped and saved at step {self.step}; run the same command again to go on")

    def update(self) -> None:
        """One optimizer step on the global batch of this step."""
        started = time.perf_counter()
        batch = self.batches.rows(self.step, self.execution.rows(self.plan.batch_size, self.world))
        batch = Batch(*(tensor.to(self.execution.device) for tensor in batch))
        loss = gradients(self.model, batch, self.execution, self.world).item()
        norm = whole(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.grad_clip)).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise DivergedError(
                f"step {self.step + 1}: loss {loss:.4g}, gradient norm {norm:.4g}; "
                f"lower peak_lr (now {self.plan.peak_lr:g}) or lengthen warmup_steps ({self.plan.warmup_steps})"
            )
        rate = learning_rate(self.plan, self.step + 1)
        set_learning_rate(self.adamw, rate)
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        self.step += 1
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
        self.progress.show(self.step, f"loss {loss:.3f}  {speed:,.0f} tokens/s  {share:.0%} of peak")

    @property
    def tokens(self) -> int:
        """Tokens seen so far."""
        return self.step * self.plan.tokens_per_step

    def call_hooks(self) -> None:
        """Runs the hooks that are due, at every multiple of theirs and at the last step."""
        for every, run in self.hooks:
            if self.step % every == 0 or self.step == self.plan.steps:
                run(self)

    def save(self) -> None:
        """Writes a checkpoint, of sound weights only; the first process writes, the others give it their shares."""
        if not all(parameter.isfinite().all() for parameter in self.model.parameters()):
            raise DivergedError(
                f"step {self.step}: a weight is no longer finite; lower peak_lr ({self.plan.peak_lr:g})"
            )
        tensors = {
            "model.safetensors": weights(self.model),
            "optimizer.safetensors": state_tensors(self.adamw, self.model),
        }
        if self.world.is_main:
            state = json.dumps({"step": self.step, "seconds": self.seconds})
            texts = {"plan.json": self.plan.to_json(), "trainer.json": state}
            texts["model.json"] = checkpoint.model_json(self.model)
            checkpoint.save(self.run_folder, self.step, {**texts, **self.texts}, tensors)
        else:
            checkpoint.take_part(tensors)

    def resume(self) -> None:
        """Takes up the newest checkpoint that verifies; without one it starts at step 0."""
        path = checkpoint.newest(self.run_folder) if self.world.is_main else None
        state = json.loads(self.world.text_from_main(json.dumps(read_json(path / "trainer.json")) if path else "{}"))
        if state:
            path = path or self.run_folder  # only the first process reads
            checkpoint.load_tensors(path / "model.safetensors", weights(self.model), self.world)
            checkpoint.load_tensors(path / "optimizer.safetensors", state_tensors(self.adamw, self.model), self.world)
            self.step, self.seconds = int(str(state["step"])), float(str(state["seconds"]))
        if self.world.is_main:
            self.metrics.cut(self.step)
