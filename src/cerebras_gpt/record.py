"""What a run tells: its metrics file, and the progress on the screen."""

import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from cerebras_gpt.files import replace_text

Row: TypeAlias = dict[str, object]


class Metrics:
    """An append-only file of JSON lines, the truth about a run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, kind: str, **values: object) -> None:
        """Appends one row; what is not a finite number is written as null, so every line is strict JSON."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **finite}) + "\n")

    def cut(self, step: int) -> None:
        """Drops the rows after a step, and a torn last line, so that a resumed run writes them once."""
        if self.path.exists():
            kept = [row for row in read_metrics(self.path) if int(str(row.get("step", 0))) <= step]
            replace_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))


def read_metrics(path: Path) -> list[Row]:
    """All whole rows of a metrics file, in order; none if it does not exist yet."""
    return list(_rows(path)) if path.exists() else []


def _rows(path: Path) -> Iterator[Row]:
    for line in path.read_text("utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # a line torn by a kill: the run that resumes writes it again
            continue


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
            columns = (TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.percentage:>3.0f}%"))
            figures = (TextColumn("{task.fields[figures]}"), TimeRemainingColumn())
            self.bar = Progress(*columns, *figures, console=console())
            self.task = self.bar.add_task(self.title, total=self.total, figures="")
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def show(self, done: int, figures: str) -> None:
        """Tells how many steps are done, with the figures of the moment."""
        if self.first is None:
            self.first = done - 1
        if self.bar is not None:
            self.bar.update(self.task, completed=done, figures=figures)
        elif self.shown and (time.monotonic() - self.spoken >= self.between or done == self.total):
            self.spoken = time.monotonic()
            eta = (self.spoken - self.started) * (self.total - done) / max(1, done - self.first)
            self.say(f"{self.title} {done}/{self.total}  {figures}  ETA {eta:.0f} s")

    def say(self, line: str) -> None:
        """One line for the person, above the bar if there is one."""
        if self.shown:
            (self.bar.console if self.bar is not None else console()).print(line, markup=False, soft_wrap=True)
