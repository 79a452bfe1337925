"""T3: power loss: what a file system may forget of a save, state by state; each must leave a checkpoint to go on from.

File calls of one save are recorded with what was synced. A state after any call: every file has its synced content, its
latest, or a torn part of it; every folder its synced names or its latest ones, entry by entry.
"""

import os
import pickle
import random
import shutil
import stat
from pathlib import Path

from benchmarks.faults.job import copy_run, reference_job, undisturbed
from benchmarks.faults.syscalls import AT, FROM
from cerebras_gpt import checkpoint
from cerebras_gpt.train.trainer import Hook

CALLS = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir")
Tree = dict[int, bytes | dict[str, int]]
"""Contents by inode: bytes of a file, names of a folder."""


def looked_at(root):
    """Everything below a folder as it is now."""
    found = {}
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        entries = list(os.scandir(folder))
        found[folder.stat().st_ino] = {entry.name: entry.inode() for entry in entries}
        found |= {entry.inode(): Path(entry.path).read_bytes() for entry in entries if entry.is_file()}
    return found


class Recorder:
    """Notes after every file call what is there, and what of it would be there after a loss of power."""

    def __init__(self, root):
        self.root, self.synced, self.states = root, looked_at(root), []
        for name in CALLS:
            setattr(os, name, self.noting(name, getattr(os, name)))

    def noting(self, name, plain):
        """The call, and a note after it."""

        def call(*arguments, **named):
            result = plain(*arguments, **named)
            now = looked_at(self.root)
            if name == "fsync":
                inode = os.fstat(arguments[0]).st_ino
                if inode in now:
                    self.synced = {**self.synced, inode: now[inode]}
            self.states.append((name, now, self.synced))
            return result

        return call


def torn(content, draw):
    """A part of a content that never reached the disk whole."""
    cut = draw.randrange(len(content) + 1)
    return draw.choice([content[:cut], content[:cut] + bytes(len(content) - cut)])


def survivor(now, synced, draw):
    """One of the trees that may be there after the loss."""
    tree: Tree = {}
    for inode, latest in now.items():
        durable = synced.get(inode)
        if isinstance(latest, dict):
            names = {name: (latest, durable or {}) for name in {*latest, *(durable or {})}}
            chosen = {name: draw.choice(pair).get(name) for name, pair in names.items()}
            tree[inode] = {name: other for name, other in chosen.items() if other is not None}
        elif durable is not None and durable == latest:
            tree[inode] = latest
        else:
            tree[inode] = draw.choice([durable or b"", latest, torn(latest, draw)])
    return {**synced, **tree}


def written(tree, inode, folder):
    """Puts a tree on the disk; a name whose inode is gone is not there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, other in tree[inode].items():
        content = tree.get(other)
        if isinstance(content, dict):
            written(tree, other, folder / name)
        elif content is not None:
            (folder / name).write_bytes(content)


def recorded(job, reference, folder):
    """The states of one save with its retention pass, and the inode of the folder of checkpoints."""
    run = copy_run(reference, folder / "recorded", up_to=FROM)
    root = run / checkpoint.FOLDER
    for path in (root, *root.rglob("*")):
        assert stat.S_ISDIR(path.stat().st_mode) or path.is_file()

    def act(trainer):
        if trainer.step == AT:
            recorder = Recorder(root)
            trainer.save()
            (folder / "states").write_bytes(pickle.dumps(recorder.states))
            os._exit(0)

    job.finish(run, [Hook(1, act)])
    return pickle.loads((folder / "states").read_bytes()), root.stat().st_ino


def campaign(report, folder, states, seed):
    """As many states as asked for, spread over all the calls of the save."""
    job = reference_job(folder, steps=60, d_model=16)
    reference = undisturbed(job, folder / "reference-power")
    found, root = recorded(job, reference, folder)
    draw, steps = random.Random(seed), {FROM: 0, AT: 0}
    for number in range(states):
        at = number % len(found)
        name, now, synced = found[at]
        run = folder / "lost"
        written(survivor(now, synced, draw), root, run / checkpoint.FOLDER)
        newest = checkpoint.newest(run)
        step = int(newest.name[5:]) if newest else 0
        report.case(f"state {number} after call {at} ({name})", [] if step in steps else [f"resumes from {step}"])
        steps[step] = steps.get(step, 0) + 1
    final = survivor_of_the_end(found, root, folder)
    report.case("after the save", [] if final == AT else [f"a save that had ended is lost: {final}"])
    report.figures |= {"file calls": len(found), "states": states, "resumed from": steps}


def survivor_of_the_end(found, root, folder):
    """The step of the newest checkpoint when only what was synced is left after the save."""
    _, now, synced = found[-1]
    written({**now, **synced}, root, folder / "end" / checkpoint.FOLDER)
    newest = checkpoint.newest(folder / "end")
    return int(newest.name[5:]) if newest else 0
