"""Adapting: a run and examples in, a run that does the task out; the same Trainer as for pretraining."""

import hashlib
import json
import math
import shutil
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch

from cerebras_gpt import checkpoint, config
from cerebras_gpt.data.example_batches import ExampleBatches, by_length
from cerebras_gpt.distributed import StopFlag, World
from cerebras_gpt.files import read_json, replace_text
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.interop import adapter
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.model.lora import add_low_rank, merged
from cerebras_gpt.model.loss import are_likeliest, token_losses
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.record import Metrics, rows_of
from cerebras_gpt.tasks.table import name_of, task_json
from cerebras_gpt.tasks.task import FILE, Scores
from cerebras_gpt.tasks.tuning_data import TuningData
from cerebras_gpt.tasks.tuning_plan import Tuning, seconds_per_step, tuning_plan, within
from cerebras_gpt.train.device import device
from cerebras_gpt.train.endings import StoppedError
from cerebras_gpt.train.execution import Execution
from cerebras_gpt.train.optim import AveragedAdamW, averaged_optimizer
from cerebras_gpt.train.pretrain import environment
from cerebras_gpt.train.speed import fast_dtype
from cerebras_gpt.train.trainer import Hook, Trainer

WORK = "work"
"""Folder of the trainer's own checkpoints, which hold what going on needs; gone when all is done."""
BEGUN, EXECUTION, DONE = "adapt.json", "execution.json", "scores.json"
MICRO_TOKENS = 8192
"""About how many tokens are computed at a time."""


@dataclass
class EarlyStop:
    """What the record says of the held-out part so far; nothing else is remembered, so a resumed run decides alike.

    The share of answer tokens that are the likeliest decides, then the loss: a model that goes on to get more right
    soon is too sure of the rest, and its loss rises long before it gets worse (Guo et al. 2017).
    """

    metrics: Metrics
    patience: int

    @property
    def merits(self) -> dict[int, tuple[float, float]]:
        """Share of likeliest tokens and negative loss by step."""
        rows = [row for row in rows_of(self.metrics.path, "held_out") if row["loss"] is not None]
        return {int(str(row["step"])): (float(str(row["likeliest"])), -float(str(row["loss"]))) for row in rows}

    @property
    def best_step(self) -> int:
        """The step of most merit, the first of equals."""
        merits = self.merits
        return max(merits, key=merits.__getitem__)

    @property
    def is_over(self) -> bool:
        """Whether the last `patience` evaluations brought nothing better."""
        steps = list(self.merits)
        return bool(steps) and len(steps) - 1 - steps.index(self.best_step) >= self.patience


class HeldOut(NamedTuple):
    """Of all held-out answers together."""

    nats: float
    n_likeliest: int
    """Tokens that were the likeliest."""


@torch.no_grad()
def held_out(model: GPT, data: TuningData, execution: Execution, filler: int) -> HeldOut:
    """How well the held-out answers are foreseen."""
    nats, n_likeliest = 0.0, 0
    for batch in by_length(data.held_out, execution.micro_batch_size, filler):
        ids, targets = (tensor.to(execution.device) for tensor in batch)
        hidden = model.hidden(ids, dtype=execution.torch_dtype)  # (B, T, C)
        nats += token_losses(hidden, model.head_table, targets).double().sum().item()
        n_likeliest += int(are_likeliest(hidden, model.head_table, targets).sum())
    return HeldOut(nats, n_likeliest)


@dataclass
class Adaptation:
    """One tuning run, begun or gone on with; every result is a function of the source, the data and the tuning."""

    source: Path
    """A verified checkpoint folder."""
    out: Path
    data: TuningData
    tuning: Tuning
    world: World = field(default_factory=World)

    @cached_property
    def lm(self) -> LM:
        """The model as it comes."""
        return LM.load(self.source)

    @cached_property
    def plan(self) -> Plan:
        """How it is tuned: as it was begun, or planned now."""
        if (self.out / "plan.json").exists():
            return Plan.load(self.out)
        name = f"{self.out.name}: {name_of(self.data.task)}"
        plan = tuning_plan(self.lm.model, name, self.source, self.data.train, self.tuning)
        if not self.tuning.minutes:
            return plan
        seconds = seconds_per_step(self.lm.model, plan, self.data.train, self.execution)
        return within(plan, self.tuning.minutes, seconds)

    @cached_property
    def execution(self) -> Execution:
        """As it was begun, or in the dtype that is fast here; weights, gradients and optimizer are float32 in both."""
        if (self.out / EXECUTION).exists():
            return config.from_mapping(Execution, read_json(self.out / EXECUTION))
        longest = max(len(sample.ids) for sample in self.data.train)
        return Execution(fast_dtype(), max(1, min(self.tuning.batch_size, MICRO_TOKENS // longest)), device())

    @property
    def identity(self) -> dict[str, object]:
        """What must be the same for a run to go on."""
        digest = hashlib.sha256()
        for sample in (*self.data.train, *self.data.held_out):
            digest.update(json.dumps(sample).encode())
        model = (self.source / checkpoint.MANIFEST).read_bytes()
        return {
            "model": hashlib.sha256(model).hexdigest(),
            "data": digest.hexdigest(),
            "task": json.loads(task_json(self.data.task)),
            "tuning": asdict(self.tuning),
        }

    def run(self) -> Scores:
        """Tunes to the end, or goes on to it, and scores the best weights on the held-out part."""
        if self.world.is_main:
            self.begin()
        self.world.wait()  # the others read what the first has written
        if not (self.out / DONE).exists():
            self.train()
            if self.world.is_main:
                self.finish()
        self.world.wait()
        return self.scores()

    def begin(self) -> None:
        """Writes what identifies the run, or refuses a folder that was begun otherwise."""
        file, identity = self.out / BEGUN, json.loads(json.dumps(self.identity))
        if file.exists():
            before = read_json(file)
            for name, value in identity.items():
                if before.get(name) != value:
                    raise ValueError(
                        f"{self.out} was begun with another {name}; give another --out, or what it began with"
                    )
        elif self.out.exists() and any(self.out.iterdir()):
            raise ValueError(f"{self.out} is not empty and was not begun by adapt; give another --out")
        else:
            self.out.mkdir(parents=True, exist_ok=True)
            replace_text(self.out / "tokenizer.json", self.lm.tokenizer.to_json())
            replace_text(self.out / "plan.json", self.plan.to_json())
            replace_text(self.out / FILE, task_json(self.data.task))
            replace_text(self.out / EXECUTION, json.dumps(config.to_mapping(self.execution)) + "\n")
            replace_text(file, json.dumps(identity, indent=2) + "\n")

    def train(self) -> None:
        """The Trainer, with the held-out loss as its hook and early stopping as its end."""
        trainer = self.trainer()
        early = EarlyStop(trainer.metrics, self.tuning.patience)
        with StopFlag() as stop:
            trainer.asked_to_stop = lambda: stop.is_set() or early.is_over
            trainer.resume()
            if self.world.is_main:
                trainer.metrics.write("start", step=trainer.step, **environment(self.execution))
                if not early.merits:
                    self.evaluate(trainer)
            try:
                if not early.is_over:
                    trainer.run()
            except StoppedError:
                if stop.is_set():
                    raise

    def trainer(self) -> Trainer:
        """The Trainer of this run; its record lies in the run folder, its checkpoints in the folder of its work."""
        model = self.lm.model
        if self.tuning.rank:
            model = add_low_rank(model, self.tuning.rank, torch.Generator().manual_seed(self.tuning.seed))
        batches = ExampleBatches(self.data.train, self.plan.batch_size, self.plan.seed, self.lm.tokenizer.end_of_text)
        hooks = [Hook(max(1, self.plan.steps // self.plan.evaluations), self.evaluate)]
        work = self.out / WORK
        work.mkdir(exist_ok=True)
        hooks = hooks if self.world.is_main else []
        trainer = Trainer(
            self.plan, model, batches, work, self.execution, self.world, hooks, optimizer=averaged_optimizer
        )
        trainer.metrics = Metrics(self.out / "metrics.jsonl")
        return trainer

    def evaluate(self, trainer: Trainer) -> None:
        """Records how the averaged weights do on the held-out part, and keeps them if they are the best so far."""
        assert isinstance(trainer.adamw, AveragedAdamW)
        with trainer.adamw.averages():
            found = held_out(trainer.model, self.data, self.execution, self.lm.tokenizer.end_of_text)
            n_targets = sum(sample.n_targets for sample in self.data.held_out)
            trainer.metrics.write(
                "held_out",
                step=trainer.step,
                tokens=trainer.tokens,
                seconds=round(trainer.seconds, 3),
                loss=found.nats / n_targets,
                likeliest=found.n_likeliest / n_targets,
                bits_per_byte=found.nats / math.log(2) / self.data.n_answer_bytes,
            )
            if EarlyStop(trainer.metrics, self.tuning.patience).best_step == trainer.step:
                self.keep(trainer)

    def keep(self, trainer: Trainer) -> None:
        """Writes the weights as a checkpoint of the run, low-rank updates merged."""
        texts = {name: (self.out / name).read_text("utf-8") for name in ("tokenizer.json", "plan.json", FILE, BEGUN)}
        texts["model.json"] = checkpoint.model_json(trainer.model)
        tensors = {"model.safetensors": merged(trainer.model)}
        if self.tuning.rank:  # beside the merged weights, so that the folder is also an adapter for PEFT
            texts[adapter.CONFIG] = adapter.adapter_config(trainer.model)
            tensors[adapter.WEIGHTS] = adapter.adapter_tensors(trainer.model)
        checkpoint.save(self.out, trainer.step, texts, tensors)

    def finish(self) -> None:
        """Scores the best weights and removes what only going on would need."""
        lm = LM.load(self.out)
        scores = self.data.task.score(lm, self.data.examples)
        replace_text(self.out / DONE, json.dumps({"figures": dict(scores.figures), "answers": list(scores.answers)}))
        shutil.rmtree(self.out / WORK, ignore_errors=True)

    def scores(self) -> Scores:
        """What `finish` found."""
        found = json.loads((self.out / DONE).read_text("utf-8"))
        return Scores(found["figures"], found["answers"])
