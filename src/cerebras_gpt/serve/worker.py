"""The thread of one model's engine: takes jobs, steps, hands pieces back, and never dies of a request."""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cerebras_gpt.generate.answer import Answer, Piece
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.generate.request import Request
from cerebras_gpt.serve.failure import queue_full
from cerebras_gpt.serve.limits import Limits

log = logging.getLogger("cerebras_gpt")
IDLE_SECONDS = 0.25


@dataclass(eq=False)
class Job:
    """One answer under way."""

    request: Request
    stop: tuple[str, ...]
    deliver: Callable[["Job", Piece], None]
    """Called from the engine's thread."""
    deadline: float
    answer: Answer | None = None
    is_cancelled: bool = False
    problem: str = ""
    born: float = field(default_factory=time.monotonic)
    first: float | None = None


class Worker:
    """One model being served."""

    def __init__(self, name: str, lm: LM, n_slots: int, limits: Limits) -> None:
        self.name, self.lm, self.limits, self.n_slots = name, lm, limits, n_slots
        self.counts: Counter[str] = Counter()
        self.waits: deque[float] = deque(maxlen=1024)
        self.beat = time.monotonic()
        self._engine = lm.engine(n_slots)
        self._new: deque[Job] = deque()
        self._jobs: list[Job] = []
        self._errands: deque[Callable[[], None]] = deque()
        self._wake, self._lock, self._stopping = threading.Event(), threading.Lock(), False
        self._thread = threading.Thread(target=self._live, name=f"engine {name}", daemon=True)

    def start(self) -> None:
        """Begins to work."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the step it is in."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(5)

    @property
    def n_open(self) -> int:
        """Answers that are waiting or under way."""
        return self.counts["accepted"] - self.counts["completed"] - self.counts["cancelled"] - self.counts["failed"]

    @property
    def n_busy(self) -> int:
        """Slots in use."""
        return len(self._engine.active)

    @property
    def is_gone(self) -> bool:
        """Whether the engine has no thread."""
        return not self._thread.is_alive()

    @property
    def stalled_seconds(self) -> float:
        """How long the engine has not moved; without end if its thread is gone."""
        return float("inf") if self.is_gone else time.monotonic() - self.beat

    def submit(
        self, requests: Sequence[Request], stop: tuple[str, ...], deliver: Callable[[Job, Piece], None]
    ) -> list[Job]:
        """Takes all of these or none."""
        deadline = time.monotonic() + self.limits.deadline_seconds
        jobs = [Job(request, stop, deliver, deadline) for request in requests]
        with self._lock:
            if self.n_open + len(jobs) > self.n_slots + self.limits.queue:
                self.counts["refused"] += 1
                raise queue_full()
            self.counts["accepted"] += len(jobs)
            self._new.extend(jobs)
        self._wake.set()
        return jobs

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Ends these before the next step."""
        for job in jobs:
            job.is_cancelled = True
        self._wake.set()

    def cancel_all(self) -> None:
        """Ends all that is waiting or under way."""
        with self._lock:
            self.cancel([*self._new, *self._jobs])

    def move(self, *_: object) -> None:
        """Says within a long errand that the engine moves."""
        self.beat = time.monotonic()

    def run(self, errand: Callable[[], None]) -> None:
        """Has something else done by the engine's thread, between two steps."""
        self._errands.append(errand)
        self._wake.set()

    def _live(self) -> None:
        while not self._stopping:
            try:
                self._work()
            except BaseException as error:
                log.error("the engine of %s failed and starts anew: %s", self.name, type(error).__name__, exc_info=True)
                self._start_anew()

    def _work(self) -> None:
        """One round: what is new, what is over, one step."""
        self.beat = time.monotonic()
        if self._errands:  # one a round, so that no number of them stops the others or the beat
            self._errands.popleft()()
        while self._new:
            job = self._new.popleft()
            self._jobs.append(job)
            job.answer = Answer(self._engine.submit(job.request), self.lm.tokenizer, job.stop)
        self._end_overdue()
        if self._engine.is_idle:
            if not self._errands:
                self._wake.wait(IDLE_SECONDS)
                self._wake.clear()
            return
        changed = {*self._engine.step()}
        for job in [job for job in self._jobs if job.answer and job.answer.continuation in changed]:
            self._tell(job)

    def _end_overdue(self) -> None:
        now = time.monotonic()
        for job in [job for job in self._jobs if job.is_cancelled or job.deadline < now]:
            assert job.answer is not None
            self._engine.cancel(job.answer.continuation)
            job.problem = "" if job.is_cancelled else f"it took longer than {self.limits.deadline_seconds:g} seconds"
            self._finish(job, Piece("", [], "cancelled" if job.is_cancelled else "failed"))

    def _tell(self, job: Job) -> None:
        assert job.answer is not None
        continuation, piece = job.answer.continuation, job.answer.pull()
        if job.first is None:
            job.first = time.monotonic()
            self.waits.append(job.first - job.born)
            self.counts["prompt_tokens"] += len(job.request.ids)
            self.counts["reused_tokens"] += continuation.n_reused
        self.counts["tokens"] += len(piece.choices)
        if piece.reason is None:
            return job.deliver(job, piece)
        self._engine.cancel(continuation)
        job.problem = continuation.problem
        self._finish(job, piece)

    def _finish(self, job: Job, piece: Piece) -> None:
        self._jobs.remove(job)
        outcome = piece.reason if piece.reason in ("cancelled", "failed") else "completed"
        self.counts[outcome] += 1
        job.deliver(job, piece)

    def _start_anew(self) -> None:
        """Fails what was under way, which may have caused it, and forgets the old engine."""
        self.counts["restarts"] += 1
        for job in list(self._jobs):
            job.problem = "the engine failed and was started anew; try again"
            self._finish(job, Piece("", [], "failed"))
        while not self._stopping:
            try:
                self._engine = self.lm.engine(self.n_slots)
                return
            except BaseException as error:  # without a beat, so that health is red until it succeeds or the watch acts
                log.error("the engine of %s cannot be made: %s", self.name, type(error).__name__)
                time.sleep(IDLE_SECONDS)
