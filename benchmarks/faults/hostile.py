"""T14: hostile surroundings: refused in one line, or trained through to the same bits; never a lost checkpoint."""

import errno
import os
import resource
import shutil
import signal
import time
from functools import partial

from benchmarks.faults.job import beside, copy_run, differences, reference_job, saved_step, undisturbed
from benchmarks.faults.plant import at_call
from cerebras_gpt import checkpoint
from cerebras_gpt.train.trainer import Hook

FROM, STEPS = 30, 40
ODD_NAMES = ("with space", "ünï-код", "-dash", "new\nline", "quote'\"", "x" * 200, "[glob]*?")


def ends(job, run, reference, hooks=(), setup=None):
    """What is wrong with a run that must go through to the same end."""
    code = job.finish(run, hooks, setup)
    if code:
        return [f"exit code {code}: {beside(run, 'err').read_text()[-300:]}"]
    return differences(run, reference)


def refused(job, run, code, words=""):
    """What is wrong with a run that must be refused in one line, and lose nothing."""
    said = beside(run, "err").read_text()
    found = [] if code == 2 else [f"exit code {code}"]
    found += ["a traceback"] if "Traceback" in said else []
    found += [] if words in said else [f"not said: {words}; but {said[-200:]}"]
    return found + ([] if saved_step(run) >= FROM else ["lost a checkpoint"])


def two_trainers(job, reference, run):
    """A second trainer on the folder of one that is at work."""
    hold = Hook(1, lambda trainer: time.sleep(0.05))
    first = job.start(run, [hold])
    while "start" not in (run / "metrics.jsonl").read_text().splitlines()[-1] and first.poll() is None:
        time.sleep(0.01)
        if saved_step(run) >= STEPS or "train" in (run / "metrics.jsonl").read_text().splitlines()[-1]:
            break
    time.sleep(0.3)
    second = job.start(run)
    code = second.wait()
    found = refused(job, run, code)
    first_code = first.wait()
    return found + ([f"the first ended with {first_code}"] if first_code else differences(run, reference))


def stale_lock(job, reference, run):
    """The lock of a trainer that was killed."""
    child = job.start(run, [Hook(1, lambda trainer: os.kill(os.getpid(), signal.SIGKILL))])
    child.wait()
    return ends(job, run, reference)


def leftover(job, reference, run):
    """A temporary folder and a file of a save that was killed."""
    left = run / checkpoint.FOLDER / ".step_00000031.0badf00d.tmp"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    (run / ".metrics.jsonl.tmp").write_text("half")
    return ends(job, run, reference)


def strange_entries(job, reference, run):
    """Files and folders in the folder of checkpoints that are none."""
    parent = run / checkpoint.FOLDER
    (parent / "step_99999999").mkdir()
    (parent / "step_best").mkdir()
    (parent / "notes.txt").write_text("mine")
    found = ends(job, run, reference)
    return found + ([] if (parent / "notes.txt").exists() else ["a file of the user is gone"])


def file_as_checkpoint(job, reference, run):
    """A file with the name of a checkpoint."""
    (run / checkpoint.FOLDER / "step_00000099").write_text("a file")
    return ends(job, run, reference)


def linked(job, reference, run):
    """The run folder is a symbolic link."""
    real = run.with_name(run.name + "-real")
    run.rename(real)
    run.symlink_to(real)
    return ends(job, run, reference)


def few_files(job, reference, run):
    """64 file descriptors at most."""

    def setup():
        most = 64 + len(os.listdir("/proc/self/fd"))  # beside those that whoever runs this had open
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    return ends(job, run, reference, setup=setup)


def clock_back(job, reference, run):
    """The clock jumps back by ten years in every second reading."""
    plain = time.time

    def setup():
        readings = []

        def back():
            readings.append(1)
            return plain() - (3e8 if len(readings) % 2 else 0)

        time.time = back

    return ends(job, run, reference, setup=setup)


def slow_fsync(job, reference, run):
    """Every fsync takes a while, as on a network disk."""
    plain = os.fsync

    def setup():
        os.fsync = lambda descriptor: (time.sleep(0.1), plain(descriptor))[1]

    return ends(job, run, reference, setup=setup)


def no_folder_sync(job, reference, run):
    """A file system on which a folder cannot be synced (EINVAL), as some network disks."""
    plain = os.fsync

    def setup():
        def fsync(descriptor):
            if os.path.isdir(f"/proc/self/fd/{descriptor}"):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            return plain(descriptor)

        os.fsync = fsync

    return ends(job, run, reference, setup=setup)


def read_only(job, reference, run):
    """A disk that cannot be written: every folder that is made and every file that is opened to write."""

    def setup():
        def refuse(*_, **__):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(run))

        os.mkdir = os.rename = os.replace = refuse

    code = job.finish(run, setup=setup)
    return ([] if code else ["exit code 0"]) + (["a traceback"] if _traceback(run) else []) + ends(job, run, reference)


def no_permission(job, reference, run):
    """A save that is not permitted."""

    def refuse():
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(run))

    hook = Hook(1, lambda trainer: at_call(1, refuse, ("mkdir",)) if trainer.step == FROM + 1 else None)
    job.finish(run, [hook])
    return (["a traceback"] if _traceback(run) else []) + ends(job, run, reference)


def _traceback(run):
    return "Traceback" in beside(run, "err").read_text()


def file_for_folder(job, reference, run):
    """A file where the folder of checkpoints should be."""
    shutil.rmtree(run / checkpoint.FOLDER)
    (run / checkpoint.FOLDER).write_text("in the way")
    code = job.finish(run)
    found = ([] if code == 2 else [f"exit code {code}"]) + (["a traceback"] if _traceback(run) else [])
    (run / checkpoint.FOLDER).unlink()
    return found + ends(job, run, reference)


def damaged_file(name, job, reference, run):
    """A file of the run that is no JSON any more: refused in one line, or mended; once it is whole the run goes on."""
    whole = (run / name).read_bytes()
    (run / name).write_bytes(whole[: len(whole) // 2])
    code = job.finish(run)
    found = ["a traceback"] if _traceback(run) else []
    if code:
        (run / name).write_bytes(whole)
        found += [] if code == 2 else [f"exit code {code}"]
    return found + ends(job, run, reference)


def torn_record(content, job, reference, run):
    """A record with a line that a kill or a bad disk left."""
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(content)
    return ends(job, run, reference)


def another_folder(name, job, reference, run):
    """A folder with an odd name."""
    odd = run.parent / "odd" / name
    odd.parent.mkdir(exist_ok=True)
    copy_run(reference, odd, up_to=FROM)
    return ends(job, odd, reference)


def moved(job, reference, run):
    """The run folder is moved between two sessions."""
    other = run.parent / "elsewhere" / "deep" / "run"
    other.parent.mkdir(parents=True)
    run.rename(other)
    for kind in ("samples", "err"):
        if beside(run, kind).exists():
            beside(run, kind).rename(beside(other, kind))
    return ends(job, other, reference)


def closed_screen(job, reference, run):
    """Standard error is closed."""
    return ends(job, run, reference, setup=partial(os.close, 2))


def cases():
    """Every case by its name."""
    plain = (
        two_trainers,
        stale_lock,
        leftover,
        strange_entries,
        file_as_checkpoint,
        linked,
        few_files,
        clock_back,
        slow_fsync,
    )
    more = (no_folder_sync, read_only, no_permission, file_for_folder, moved, closed_screen)
    found = {case.__doc__.rstrip("."): case for case in (*plain, *more)}
    found |= {f"a folder named {name[:12]!r}": partial(another_folder, name) for name in ODD_NAMES}
    found |= {f"half of {name}": partial(damaged_file, name) for name in ("plan.json", "data.json", "calibration.json")}
    torn = {"a torn line": b'{"kind": "tra', "bytes that are no UTF-8": b"\xff\xfe\n", "zeros": bytes(512)}
    return found | {f"{name} in the record": partial(torn_record, content) for name, content in torn.items()}


def campaign(report, folder, seed):
    """Every case once, each on a copy of a run that stands at step 30."""
    job = reference_job(folder, steps=STEPS)
    reference = undisturbed(job, folder / f"reference-float32-{STEPS}")
    for number, (name, case) in enumerate(cases().items()):
        run = copy_run(reference, folder / f"hostile-{number}", up_to=FROM)
        try:
            problems = case(job, reference, run)
        except (OSError, ValueError, TimeoutError) as error:
            problems = [f"{type(error).__name__}: {error}"]
        report.case(name, problems)
    report.figures["cases"] = len(report.cases)
