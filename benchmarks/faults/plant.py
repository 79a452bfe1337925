"""Faults inside the process: at a chosen file call of a save, and in the numbers of a chosen batch."""

import errno
import os
import signal
import threading

from cerebras_gpt.data.batches import PackedBatches
from cerebras_gpt.train.trainer import Trainer

CALLS = ("open", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir")
"""Of the module os: all that a save goes through, but for the writes themselves."""


def at_call(number, act, calls=CALLS):
    """Does something at the file call of that number from now on, whichever thread makes it."""
    lock, seen = threading.Lock(), []

    def wrapped(plain):
        def call(*arguments, **named):
            with lock:
                seen.append(1)
                now = len(seen) == number
            if now:
                act()
            return plain(*arguments, **named)

        return call

    for name in calls:
        setattr(os, name, wrapped(getattr(os, name)))


def die():
    """kill -9 of this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail(number=errno.EIO):
    """The error of a disk."""
    raise OSError(number, os.strerror(number))


def on_batches(wanted, change, times=10**9):
    """Changes loss and gradients that come from some batches: change(loss, parameters) -> loss."""
    rows, begun = PackedBatches.rows, Trainer.__post_init__
    current, done = [], []

    def noted(self, step, wanted_rows):
        current[:] = [step]
        return rows(self, step, wanted_rows)

    def begin(self):
        begun(self)
        plain = self.gradients

        def gradients(model, *others):
            loss = plain(model, *others)
            if current[0] in wanted and len(done) < times:
                done.append(1)
                return change(loss, list(model.parameters()))
            return loss

        self.gradients = gradients

    PackedBatches.rows, Trainer.__post_init__ = noted, begin


def on_rows(wanted, change):
    """Changes the rows of some batches: change(batch) -> batch."""
    rows = PackedBatches.rows

    def changed(self, step, wanted_rows):
        batch = rows(self, step, wanted_rows)
        return change(batch) if step in wanted else batch

    PackedBatches.rows = changed
