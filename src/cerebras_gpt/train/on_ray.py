"""Trials on several machines: every one a task of a Ray cluster, with the bits that the processes here would give."""

import os
import re
import signal
import socket
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from cerebras_gpt.data.shards import Shards
from cerebras_gpt.process import threads_are_bound, unbound_children
from cerebras_gpt.train.crew import prepare
from cerebras_gpt.train.execution import Execution
from cerebras_gpt.train.trial import Outcome, Trial, Work, WorkerDiedError, outcome

LOCAL = "local"
ADDRESS = re.compile(r"local|auto|ray://[^\s:/]+:\d+")
N_RETRIES = 3
"""How often Ray begins a trial anew whose process or host is lost."""


@dataclass(frozen=True)
class RayTasks:
    """The cores of a Ray cluster, a trial on each."""

    address: str
    """local: a cluster of this machine alone; auto: the one that this host is part of; ray://HOST:PORT: another."""
    n: int | None = None
    """Trials at a time at most; None: one a core."""

    def __post_init__(self) -> None:
        if not ADDRESS.fullmatch(self.address):
            raise ValueError(f"--ray {self.address!r} is no address; give local, auto or ray://HOST:10001")
        if find_spec("ray") is None:
            raise ValueError('trials on several machines need ray; pip install "cerebras-gpt[ray]"')

    def train(self, work: Work) -> Generator[tuple[str, Outcome], None, None]:
        """Keys and outcomes as they come; raises WorkerDiedError naming a trial that was lost again and again."""
        if not work.trials:
            return
        ray = self._connected()
        began_here = self.address == LOCAL and threads_are_bound()
        task = ray.remote(num_cpus=1, max_retries=N_RETRIES)(_task)
        waiting = deque(work.longest_first)
        busy: dict[Any, str] = {}  # keys by Ray's references
        try:
            while waiting or busy:
                while waiting and (self.n is None or len(busy) < self.n):
                    key, trial = waiting.popleft()
                    busy[task.remote(trial, work.data.resolve(), work.fingerprint, work.execution, began_here)] = key
                ready, _ = ray.wait(list(busy))
                key = busy.pop(ready[0])
                yield key, _result(ray, ready[0], work.trials[key])
        finally:
            for reference in busy:
                ray.cancel(reference, force=True)

    def _connected(self) -> ModuleType:
        """Ray, connected; it stays so until the process ends, because the next trials come soon."""
        import ray

        if ray.is_initialized():
            return ray
        begun = {"num_cpus": self.n, "include_dashboard": False} if self.address == LOCAL else {}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
        try:
            with unbound_children(), _own_signals():
                ray.init(self.address, logging_level="error", log_to_driver=False, **begun)
        except (ConnectionError, RuntimeError) as error:
            reason = _first_sentence(error)
            raise ValueError(
                f"no Ray at {self.address} ({reason}); begin one with `ray start --head`, or give --ray local"
            ) from None
        return ray


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keeps what this process does at SIGTERM, which Ray would take."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _result(ray: ModuleType, reference: object, trial: Trial) -> Outcome:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        reason = _first_sentence(error)
        raise WorkerDiedError(f"Ray lost the process that trained {trial.name!r}, with all retries: {reason}") from None


def _first_sentence(error: Exception) -> str:
    return re.split(r"\.\s|\n", str(error).strip())[0].rstrip(".")


def _task(trial: Trial, data: Path, fingerprint: str, execution: Execution, has_one_core: bool) -> Outcome:
    """What runs on the host that Ray chose."""
    prepare(has_one_core)
    check_same_pack(data, fingerprint)
    return outcome(trial, data, execution)


def check_same_pack(data: Path, fingerprint: str) -> None:
    """Raises ValueError naming this host if the path is not the pack of the host that asks."""
    found = ""
    with suppress(OSError, ValueError):
        found = Shards.open(data, "train", verify=False).fingerprint
    if found != fingerprint:
        what = "another pack" if found else "no pack"
        raise ValueError(
            f"{data} is {what} on the host {socket.gethostname()}; put the same one there, or on a disk that all share"
        )
