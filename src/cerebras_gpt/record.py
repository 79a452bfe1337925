"""What a run tells: its metrics file, and the progress on the screen."""

import errno
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from cerebras_gpt.files import errors_of, replace_text

log = logging.getLogger("cerebras_gpt")

Row: TypeAlias = dict[str, object]

DECISION = "guard"
"""The kind of the rows that tell what was done about a step that would have spoiled the run."""


class Metrics:
    """An append-only file of JSON lines, the truth about a run.

    A disk that takes no more does not stop the run: rows wait in memory, and are written before the next one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting: list[str] = []

    def write(self, kind: str, **values: object) -> None:
        """Appends one row; what is not a finite number is written as null, so every line is strict JSON."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        self.waiting.append(json.dumps({"kind": kind, **finite}) + "\n")
        n_before = len(self.waiting) - 1
        try:
            self.write_waiting()
        except OSError as error:
            if not n_before:
                log.warning("%s: %s; training goes on, its rows wait in memory", self.path, error.strerror)

    def write_waiting(self) -> None:
        """Writes what waits, all of it or nothing; raises OSError."""
        if not self.waiting:
            return
        with errors_of(self.path), self.path.open("ab", buffering=0) as file:
            size = file.tell()
            content = "".join(self.waiting).encode("utf-8")
            try:
                written = file.write(content)
                if written != len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                with suppress(OSError):
                    file.truncate(size)
                raise
        self.waiting.clear()

    def cut(self, step: int, n_decisions: int = sys.maxsize) -> None:
        """Drops the rows after a step, the decisions after so many, and a torn last line.

        A resumed run writes them again, so that each is there once.
        """
        self.write_waiting()
        if self.path.is_file():
            text = "".join(json.dumps(row) + "\n" for row in _kept(_rows(self.path), step, n_decisions))
            if text.encode("utf-8") != self.path.read_bytes():
                replace_text(self.path, text)


def read_metrics(path: Path) -> list[Row]:
    """All whole rows of a metrics file, in order; none if it does not exist yet."""
    return list(_rows(path)) if path.is_file() else []


def rows_of(path: Path, *kinds: str) -> list[Row]:
    """The whole rows of some kinds, in order; of the others one at a time is in memory, however long the run is."""
    return [row for row in _rows(path) if row["kind"] in kinds] if path.is_file() else []


def _rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:  # a line torn by a kill: the run that resumes writes it again
                continue


def _kept(rows: Iterable[Row], step: int, n_decisions: int) -> Iterator[Row]:
    """The rows up to a step, without the decisions after so many."""
    n_seen = 0
    for row in rows:
        if int(str(row.get("step", 0))) <= step:
            n_seen += row["kind"] == DECISION
            if row["kind"] != DECISION or n_seen <= n_decisions:
                yield row


def console() -> Console:
    """The screen for people: standard error, so that results on standard output stay clean."""
    return Console(stderr=True, highlight=False)


class Screen:
    """What a person reads while a longer job goes through its stages."""

    def __init__(self) -> None:
        self._console = console()

    def stage(self, number: int, title: str) -> None:
        """Begins a stage."""
        self._console.print(f"\n[bold]{number}. {title}[/bold]")

    def say(self, line: str) -> None:
        """One plain line under the stage."""
        self._console.print(f"   {line}", markup=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """A time as a person says it.

    >>> duration(4.2), duration(75), duration(3700)
    ('4 s', '1 min 15 s', '1 h 02 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


class Steps:
    """Progress over a known number of steps: a bar with an ETA on a terminal, plain lines elsewhere."""

    def __init__(self, title: str, total: int, shown: bool = True, seconds_between_lines: float = 10.0) -> None:
        self.title, self.total, self.shown = title, total, shown
        self.between = seconds_between_lines
        self.started = self.spoken = time.monotonic()
        self.first: int | None = None
        self.bar: Progress | None = None

    def __enter__(self) -> "Steps":
        if self.shown and sys.stderr.isatty():
            columns = (TextColumn("   {task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
            self.bar = Progress(*columns, TextColumn("{task.fields[figures]}"), console=console(), expand=True)
            self.task = self.bar.add_task(self.title, total=self.total, figures="")
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def show(self, done: int, figures: str) -> None:
        """Tells how many steps are done, with the figures of the moment."""
        now = time.monotonic()
        if self.first is None or done <= self.first:  # begun in the middle, or gone back: these steps alone count
            self.first = done - 1
        left = (now - self.started) / (done - self.first) * (self.total - done)
        figures = (
            f"{figures}  {f'{duration(left)} left' if done < self.total else f'took {duration(now - self.started)}'}"
        )
        if self.bar is not None:
            self.bar.update(self.task, completed=done, figures=figures)
        elif self.shown and (now - self.spoken >= self.between or done == self.total):
            self.spoken = now
            self.say(f"{self.title} {done:,}/{self.total:,}  {figures}")

    def say(self, line: str) -> None:
        """One line for the person, above the bar if there is one."""
        if self.shown:
            screen = self.bar.console if self.bar is not None else console()
            screen.print(f"   {line}", markup=False, soft_wrap=True)
