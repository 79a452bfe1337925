"""T5: a disk that is full or fails leaves the checkpoint before, no litter, one line, and a way on."""

import os
import resource
import shutil
import signal
import subprocess
from functools import partial

from benchmarks.faults.job import beside, copy_run, leftovers, reference_job, saved_step, undisturbed
from benchmarks.faults.syscalls import AT, FROM, counted, prepared, resumed, save_under, settle
from cerebras_gpt import checkpoint
from cerebras_gpt.train.trainer import Hook

ERRORS = ("ENOSPC", "EIO", "EDQUOT")
CALLS = ("write", "fsync", "rename", "close", "openat", "mkdir")
MIB = 2**20


def mounted(folder, mib):
    """Mounts a small file system, for root only."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)], check=True)


def unmounted(folder):
    """Takes it away again."""
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder, free_bytes):
    """Leaves about so many bytes of a file system."""
    space = os.statvfs(folder)
    size = max(0, space.f_bavail * space.f_frsize - free_bytes)
    with (folder / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size) if size else None


def fills(run, free_bytes, trainer):
    """A hook that fills the disk before the save of step AT."""
    if trainer.step == AT:
        fill(run.parent, free_bytes)


def ends_after(step, trainer):
    """A hook that ends the process some steps after the disturbed save, however it went."""
    if trainer.step == step:
        settle(trainer)
        os._exit(0)


def judged(run, code):
    """What is wrong right after the disk refused; a run that goes on is as right as one that exits with its code."""
    found = []
    if code not in (0, 2, 3) and code not in allowed_codes():
        found.append(f"exit code {code}: {beside(run, 'err').read_text()[-300:]}")
    if "Traceback" in beside(run, "err").read_text():
        found.append("a traceback")
    if saved_step(run) not in (FROM, AT):
        found.append(f"the newest checkpoint is of step {saved_step(run)}")
    return found + ([f"left {leftovers(run)}"] if leftovers(run) else [])


def allowed_codes():
    """The exit code for a disk without space, if it has one of its own."""
    from cerebras_gpt import errors

    return {getattr(errors, name) for name in ("NO_SPACE_LEFT", "DISK", "DISK_FULL") if hasattr(errors, name)}


def filled(report, job, reference, folder, levels):
    """A file system with less and less space, down to nothing."""
    disk = folder / "disk"
    mounted(disk, 64)
    try:
        size = sum(file.stat().st_size for file in checkpoint.checkpoints(reference)[0].iterdir())
        for level in range(levels):
            free = int(1.3 * size * level / (levels - 1)) if levels > 1 else 0
            run = copy_run(reference, disk / f"run-{level}", up_to=FROM)
            hooks = [Hook(1, partial(fills, run, free)), saves_at(AT), Hook(1, partial(ends_after, AT + 3))]
            code = job.start(run, hooks).wait()
            problems = judged(run, code)
            (disk / "filler").unlink(missing_ok=True)
            report.case(f"{free:,} bytes free", problems + resumed(job, reference, run), code=code)
            shutil.rmtree(run)
    finally:
        unmounted(disk)


def saves_at(step):
    """A hook that saves after a step."""
    return Hook(1, lambda trainer: trainer.save() if trainer.step == step else None)


def failing_calls(report, job, reference, folder):
    """Each call of a save, refused once with each error."""
    _, text = save_under(job, prepared(job, reference, folder, "counted"), ["-e", f"trace={','.join(CALLS)}"])
    for call, n in sorted(counted(text).items()):
        for error in ERRORS:
            for k in range(1, n + 1) if call in CALLS else []:
                run = prepared(job, reference, folder, f"{call}-{error}-{k}")
                options = ["-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={k}"]
                code, _ = save_under(job, run, options)
                report.case(f"{error} at {call} {k}", judged(run, code) + resumed(job, reference, run), code=code)


def limited(n_bytes):
    """Files of this process may not grow beyond so many bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


def limits(report, job, reference, folder, n_levels):
    """Short writes: files may not grow beyond a limit."""
    largest = max(file.stat().st_size for file in checkpoint.checkpoints(reference)[0].iterdir())
    for level in range(n_levels):
        run = prepared(job, reference, folder, f"limit-{level}")
        n_bytes = int(largest * (level + 0.5) / n_levels) + 20_000
        hook = Hook(1, lambda trainer, n=n_bytes: limited(n) if trainer.step == AT else None)
        code = job.start(run, [hook, saves_at(AT), Hook(1, partial(ends_after, AT + 3))]).wait()
        problems = judged(run, code) + resumed(job, reference, run)
        report.case(f"files of {n_bytes:,} bytes at most", problems, code=code)


def full_record(report, job, reference, folder):
    """A metrics file on a device that is always full."""
    run = prepared(job, reference, folder, "dev-full")
    kept = (run / "metrics.jsonl").read_bytes()

    def to_full(trainer):
        if trainer.step == AT:
            (run / "metrics.jsonl").unlink()
            (run / "metrics.jsonl").symlink_to("/dev/full")

    code = job.start(run, [Hook(1, to_full), Hook(1, partial(ends_after, AT + 3))]).wait()
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").write_bytes(kept)
    report.case("metrics on /dev/full", judged(run, code) + resumed(job, reference, run), code=code)


def campaign(report, folder, levels, seed, as_root=True):
    """All ways in which a disk refuses; without root the limits alone."""
    job = reference_job(folder, steps=60)
    reference = undisturbed(job, folder / "reference-float32-60")
    limits(report, job, reference, folder, max(2, levels // 4))
    full_record(report, job, reference, folder)
    if as_root:
        filled(report, job, reference, folder, levels)
        failing_calls(report, job, reference, folder)
    codes = [case["code"] for case in report.cases]
    report.figures |= {
        "cases": len(report.cases),
        "ended by": {str(code): codes.count(code) for code in sorted(set(codes))},
    }
