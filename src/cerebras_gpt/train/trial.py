"""Trials: plans trained in memory only to see how good they are, many at once, in a record that a kill cannot spoil."""

import hashlib
import json
import math
import os
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from cerebras_gpt import config
from cerebras_gpt.data.batches import Batch, PackedBatches
from cerebras_gpt.data.shards import Shards
from cerebras_gpt.distributed import World
from cerebras_gpt.errors import MISTAKE
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.plan.flops import training_flops
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.record import Steps
from cerebras_gpt.train.endings import StoppedError
from cerebras_gpt.train.execution import Execution, gradients
from cerebras_gpt.train.held_out import Scoring, held_out_loss
from cerebras_gpt.train.optim import learning_rate, optimizer, set_learning_rate
from cerebras_gpt.train.pretrain import check_vocabulary

QUICKLY = Scoring(2**16, overlap=1)
"""How a trial is scored unless it says otherwise; the same text for every trial."""

LAST_PART = 10
"""The training loss of a trial is the mean over its last tenth of steps: one batch is too noisy."""


class WorkerDiedError(RuntimeError):
    """A process that trained a trial is gone."""

    exit_code = MISTAKE  # the usual cause is memory that is not there


@dataclass(frozen=True)
class Trial:
    """A plan to be tried, with a name to tell of it."""

    name: str
    plan: Plan
    scoring: Scoring = QUICKLY


class Outcome(NamedTuple):
    """What became of a trial; both losses are infinite if it diverged, which is a result and no error."""

    name: str
    loss: float
    """Mean training loss over the last tenth of the steps, nats per token."""
    held_out: float
    """On held-out text after the last step, nats per token."""
    seconds: float


def outcome(trial: Trial, data: Path, execution: Execution = Execution()) -> Outcome:  # noqa: B008  (it is frozen)
    """Trains the trial's plan on a pack in memory; on a CPU the same losses every time, to the last bit."""
    plan, started = trial.plan, time.perf_counter()
    train, held_out = (Shards.open(data, split, verify=False) for split in ("train", "val"))
    check_vocabulary(plan, train)
    seq_len = plan.architecture.seq_len
    model = initialize(GPT(plan.architecture, plan.parametrization), torch.Generator().manual_seed(plan.seed))
    model.to(execution.device).train()
    losses = _train(model, plan, PackedBatches(train, seq_len, plan.batch_size, plan.seed), execution)
    if len(losses) < plan.steps:
        return Outcome(trial.name, math.inf, math.inf, time.perf_counter() - started)
    windows = trial.scoring.windows(held_out, seq_len, execution.micro_batch_size)
    found = held_out_loss(model, windows, execution).loss
    last = losses[-max(1, plan.steps // LAST_PART) :]
    finite = math.isfinite(found)
    return Outcome(
        trial.name,
        math.fsum(last) / len(last) if finite else math.inf,
        found if finite else math.inf,
        time.perf_counter() - started,
    )


def _train(model: GPT, plan: Plan, batches: PackedBatches, execution: Execution) -> list[float]:
    """The loss of every step, fewer than the plan's if one was no longer finite."""
    adamw = optimizer(model, plan)
    losses: list[float] = []
    for step in range(plan.steps):
        batch = Batch(*(tensor.to(execution.device) for tensor in batches[step]))
        loss = gradients(model, batch, execution, World()).item()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), plan.grad_clip).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            break
        set_learning_rate(adamw, learning_rate(plan, step + 1))
        adamw.step()
        adamw.let_go()
        losses.append(loss)
    return losses


class TrialRecord:
    """Outcomes by key in a file of JSON lines; each line is durable when `add` returns, a torn last one is ignored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outcomes: dict[str, Outcome] = {}
        text = path.read_text("utf-8") if path.exists() else ""
        for line in text.splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # torn by a kill: the trial is done again
                continue
            self._take(row)
        self._torn = bool(text) and not text.endswith("\n")

    def _take(self, row: object) -> None:
        try:
            key, name, *figures = (row[field] for field in ("key", "name", "loss", "held_out", "seconds"))  # type: ignore[index]
            self.outcomes[key] = Outcome(name, *(math.inf if figure is None else float(figure) for figure in figures))
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{self.path} is no record of trials; give another file, or delete it") from None

    def add(self, key: str, found: Outcome) -> None:
        """Appends one outcome; infinity is written as null, so every line is strict JSON."""
        figures = {name: None if value == math.inf else value for name, value in found._asdict().items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * self._torn + json.dumps({"key": key, **figures}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._torn = False
        self.outcomes[key] = found


def trial_key(plan: Plan, fingerprint: str, execution: Execution, scoring: Scoring = QUICKLY) -> str:
    """A hash of all that decides a trial's outcome: the plan without its words, pack, execution, scoring."""
    bare = config.to_mapping(replace(plan, name="", reasons=(), prediction=None, evaluations=1, saves=1))
    bare.pop("guard")  # a trial that diverges is a result, nothing is done about it
    what = f"{json.dumps(bare, indent=2)}\n {fingerprint} {execution}"
    if scoring != QUICKLY:  # records that know no other stay good
        what += f" {scoring}"
    return hashlib.sha256(what.encode()).hexdigest()[:32]


class Work(NamedTuple):
    """Trials to be trained, each by its key, on one pack."""

    trials: Mapping[str, Trial]
    data: Path
    fingerprint: str
    """Of the pack, so that another host can tell whether it reads the same one."""
    execution: Execution

    @property
    def longest_first(self) -> list[tuple[str, Trial]]:
        """In the order to begin them in, so that no long one is left over at the end."""
        plans = {key: trial.plan for key, trial in self.trials.items()}
        flops = {key: training_flops(plan.architecture, plan.tokens) for key, plan in plans.items()}
        return sorted(self.trials.items(), key=lambda item: -flops[item[0]])


class Workers(Protocol):
    """Whoever trains: the processes of this machine (`crew`), or those of many (`on_ray`)."""

    def train(self, work: Work) -> Generator[tuple[str, Outcome], None, None]:
        """Keys and outcomes as they come; closed early, nothing of it goes on. Raises WorkerDiedError."""
        ...


def outcomes(
    trials: Sequence[Trial],
    data: Path,
    record: Path,
    workers: Workers,
    execution: Execution = Execution(),  # noqa: B008  (it is frozen)
    title: str = "trials",
) -> list[Outcome]:
    """What becomes of every trial, in their order; those already in the record are not trained again.

    Every trial is computed on one thread, so the numbers do not depend on how many workers there are. Raises
    StoppedError on Ctrl-C and WorkerDiedError naming the trial; the same call goes on from the record.
    """
    fingerprint = _checked(trials, data)
    known = TrialRecord(record)
    keys = [trial_key(trial.plan, fingerprint, execution, trial.scoring) for trial in trials]
    pending = {key: trial for key, trial in zip(keys, trials, strict=True) if key not in known.outcomes}
    n_known = len(set(keys)) - len(pending)
    done = workers.train(Work(pending, data, fingerprint, execution))
    with Steps(title, len(set(keys))) as progress, closing(done):
        try:
            for n_done, (key, found) in enumerate(done, n_known + 1):
                known.add(key, found)
                best = min((known.outcomes[key] for key in keys if key in known.outcomes), key=lambda o: o.held_out)
                progress.show(n_done, f"best held-out {best.held_out:.4f} nats/token ({best.name})")
        except KeyboardInterrupt:
            raise StoppedError(f"stopped; finished trials are in {record}, the same command goes on") from None
        except WorkerDiedError as error:
            raise WorkerDiedError(f"{error}; finished trials are in {record}, the same command goes on") from None
    return [known.outcomes[key]._replace(name=trial.name) for key, trial in zip(keys, trials, strict=True)]


def _checked(trials: Sequence[Trial], data: Path) -> str:
    """The pack's fingerprint, after every plan was found to fit the pack."""
    train, _ = (Shards.open(data, split) for split in ("train", "val"))
    for trial in trials:
        check_vocabulary(trial.plan, train)
        PackedBatches(train, trial.plan.architecture.seq_len, 1, 0)  # refuses a text that is too short
    return train.fingerprint
