"""Child processes that cost no import: forked from this one, killed, stopped and traced by the driver."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from cerebras_gpt.errors import OURS, ending

PATIENCE_SECONDS = 120.0
STOPS = (signal.SIGTERM, signal.SIGINT)


@dataclass
class Child:
    """A forked process, leader of a group of its own."""

    pid: int
    log: Path
    started: float = field(default_factory=time.monotonic)
    code: int | None = None

    def poll(self):
        """The exit code (minus the signal that killed it), None while it lives."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def wait(self, seconds=PATIENCE_SECONDS):
        """The exit code; a child that takes longer is killed and reported as a hang."""
        until = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > until:
                self.kill()
                raise TimeoutError(f"a child hung for {seconds:.0f} s; {self.log.read_text()}")
            time.sleep(0.002)
        return self.code

    def signal(self, number):
        """Sends a signal to the whole group of the child, if it still lives."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def kill(self):
        """kill -9; gives the exit code."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def stopped(self, seconds=PATIENCE_SECONDS):
        """Waits until the child has stopped itself; False if it ended instead."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
            if pid and os.WIFSTOPPED(status):
                return True
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                return False
            time.sleep(0.001)
        raise TimeoutError("the child never came to its stop")


def start(work, log):
    """Forks a child that does the work and exits as the command line would."""
    sys.stdout.flush()
    sys.stderr.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # one that comes while Python forks would be swallowed
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpgid(pid, pid)
        return Child(pid, log)
    os._exit(_worked(work, log))


def _worked(work, log):
    """The exit code of a child."""
    try:
        with contextlib.suppress(PermissionError):
            os.setpgid(0, 0)
        for number in STOPS:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))  # not a test runner's
        logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
        work()
        return 0
    except BaseException as error:
        found = ending(error)
        with contextlib.suppress(OSError):
            os.write(2, (found.line if found else traceback.format_exc()).encode() + b"\n")
        return found.code if found else OURS


def end_all():
    """Kills and reaps whatever this process has started, so that nobody writes into a folder that is cleaned."""
    for tasks in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # a thread or a child may have ended meanwhile
            for pid in tasks.read_text().split():
                os.kill(int(pid), signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def traced(child, options, log):
    """Runs strace on a stopped child and lets it go on; gives the exit code of the child."""
    command = ["strace", "-f", "-qq", "-o", str(log), *options, "-p", str(child.pid)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as strace:
        while strace.poll() is None and not _is_traced(child.pid):
            time.sleep(0.002)
        os.kill(child.pid, signal.SIGCONT)
        code = child.wait()
        strace.wait()
    return code


def _is_traced(pid):
    """Whether every thread of a process has a tracer."""
    statuses = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return all("TracerPid:\t0" not in text for text in statuses)
