"""T12: the writer of a checkpoint is killed or fails at every phase; `latest` never names one that does not verify."""

import random
import threading
import time

from benchmarks.faults.job import (
    beside,
    copy_run,
    differences,
    leftovers,
    reference_job,
    saved_step,
    undisturbed,
)
from benchmarks.faults.plant import at_call, die, fail
from benchmarks.faults.report import spread
from cerebras_gpt import checkpoint
from cerebras_gpt.record import read_metrics
from cerebras_gpt.train.trainer import Hook

FROM, AT = 30, 40
OBSERVED_EVERY_SECONDS = 0.01
SEEN_STEPS = 1
STEP_SECONDS = 0.1
"""A step of the reference job takes a few ms, in which a writer cannot even take its temporary files away; after the
fault the steps are made as long as those of a small real model."""


class Observer(threading.Thread):
    """Looks at the newest checkpoint of a run again and again, as a reader in another process would."""

    def __init__(self, run):
        super().__init__(daemon=True)
        self.run_folder, self.looks, self.bad, self.ended = run, 0, [], threading.Event()

    def run(self):
        """Every ten milliseconds, until it is told to end."""
        while not self.ended.wait(OBSERVED_EVERY_SECONDS):
            self.looks += 1
            for path in checkpoint.checkpoints(self.run_folder)[:1]:
                try:
                    checkpoint.verify(path)
                except (ValueError, OSError) as error:
                    if path.exists() and path in checkpoint.checkpoints(self.run_folder)[:1]:
                        self.bad.append(f"{path.name}: {error}")

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join()


def planting(step, phase, act):
    """A hook that plants a fault at a file call after a step."""

    def run(trainer):
        if trainer.step == step and not getattr(trainer, "planted", False):
            trainer.planted, trainer.saver.small = True, 0  # from here on a thread writes
            at_call(phase, lambda: noted(trainer, act))
        elif beside(trainer.run_folder, "fault").exists():
            time.sleep(STEP_SECONDS)

    return Hook(1, run)


def noted(trainer, act):
    """Does it, and writes down when."""
    beside(trainer.run_folder, "fault").write_text(str(trainer.step))
    act()


def told_after(run):
    """Steps from each failure of the writer to the row that tells of it."""
    rows = [row for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "save_failed"]
    return [row["step"] - int(beside(run, "fault").read_text()) for row in rows]


def disturbed(job, reference, run, phase, act, up_to=FROM, at=AT):
    """A run whose save at a step meets the fault at a phase; its exit code and what the observer saw."""
    copy_run(reference, run, up_to=up_to)
    with Observer(run) as observer:
        code = job.start(run, [planting(at, phase, act)]).wait()
    return code, observer


def judged(job, reference, run, code, observer, allowed):
    """What is wrong after it, and after the run went on."""
    found = [f"latest did not verify: {bad}" for bad in observer.bad[:1]]
    if code not in allowed:
        found.append(f"exit code {code}: {beside(run, 'err').read_text()[-300:]}")
    if saved_step(run) < FROM:
        found.append(f"fell back to step {saved_step(run)}")
    if code not in (0, -9) and leftovers(run):
        found.append("left temporary files")
    code = job.finish(run)
    return found + ([f"then exit code {code}"] if code else differences(run, reference))


def campaign(report, folder, moments, seed):
    """Phases drawn at random: killed there, or an error there; then the last save of a run."""
    job = reference_job(folder, steps=60)
    reference = undisturbed(job, folder / "reference-float32-60")
    draw, looks, visible = random.Random(seed), 0, []
    for number in range(moments):
        phase, kills = draw.randint(1, 40), number % 2 == 0
        run = folder / f"saving-{number}"
        code, observer = disturbed(job, reference, run, phase, die if kills else fail)
        looks += observer.looks
        visible += told_after(run)
        problems = judged(job, reference, run, code, observer, (-9, 0) if kills else (0, 1, 2, 6, 7))
        report.case(f"{'killed' if kills else 'failed'} at file call {phase}", problems, code=code)
    for phase in (1, 5, 9):
        last_save(report, job, reference, folder / f"last-{phase}", phase)
    if visible and max(visible) > SEEN_STEPS:
        report.case("seen in time", [f"a failure was seen {max(visible)} steps late"])
    report.figures |= {"observations": looks, "failures told": len(visible), "steps until told": spread(visible)}


def last_save(report, job, reference, run, phase):
    """An error in the last save of a run must not end it as if all were well."""
    started = time.monotonic()
    code, observer = disturbed(job, reference, run, phase, fail, up_to=50, at=60)
    problems = ["the last save failed and the exit code is 0"] if code == 0 and saved_step(run) != 60 else []
    report.case(
        f"last save failed at file call {phase}",
        problems + judged(job, reference, run, code, observer, range(10)),
        code=code,
        seconds=round(time.monotonic() - started, 2),
    )
