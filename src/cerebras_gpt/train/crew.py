"""The processes of this machine that train trials, one beside the other."""

import signal
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch

from cerebras_gpt.process import free_cores, keep_memory, threads_are_bound, unbound_children
from cerebras_gpt.train.execution import Execution
from cerebras_gpt.train.trial import Outcome, Trial, Work, WorkerDiedError, outcome


@dataclass(frozen=True)
class Processes:
    """So many processes on this machine, each on one thread."""

    n: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"{self.n} workers cannot train anything; give 1 or more")

    def train(self, work: Work) -> Generator[tuple[str, Outcome], None, None]:
        """Keys and outcomes as they come; raises WorkerDiedError naming the trial whose process is gone."""
        waiting = deque(work.longest_first)
        crew = [_Worker(work.data, work.execution) for _ in range(min(self.n, len(waiting)))]
        try:
            for worker in crew:
                worker.begin(*waiting.popleft())
            busy = {worker.pipe: worker for worker in crew}
            while busy:
                for pipe in wait(list(busy)):
                    worker = busy[pipe]  # type: ignore[index]
                    yield worker.key, worker.result()
                    if waiting:
                        worker.begin(*waiting.popleft())
                    else:
                        del busy[worker.pipe]
        finally:
            for worker in crew:
                worker.process.kill()


class _Worker:
    """A process that trains one trial after the other; loading torch anew for each would cost seconds."""

    def __init__(self, data: Path, execution: Execution) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, data, execution, threads_are_bound())
        self.process = context.Process(target=_work, args=arguments, daemon=True)
        with unbound_children():
            self.process.start()
        theirs.close()  # so that the death of the process ends the pipe

    def begin(self, key: str, trial: Trial) -> None:
        self.key, self.trial = key, trial
        self.pipe.send(trial)

    def result(self) -> Outcome:
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"was killed by signal {-code}, perhaps for memory" if code < 0 else f"ended with code {code}"
            raise WorkerDiedError(f"the process that trained {self.trial.name!r} {how}") from None


def _work(pipe: Connection, data: Path, execution: Execution, has_one_core: bool) -> None:
    """Answers every trial with its outcome until nobody asks any more."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they are for the process that keeps the record
        signal.signal(number, signal.SIG_IGN)
    prepare(has_one_core)
    try:
        while True:
            pipe.send(outcome(pipe.recv(), data, execution))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # who asked is gone
        return


def prepare(has_one_core: bool) -> None:
    """Makes ready a process that trains trials; it may have inherited the one core of the thread that began it."""
    keep_memory()
    if has_one_core:
        free_cores()
    torch.set_num_threads(1)
