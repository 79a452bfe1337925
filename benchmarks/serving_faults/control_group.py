"""S14: a real limit on memory, by a control group (version 1) that the server is put into as it runs."""

import contextlib
import os
import signal
import time
from pathlib import Path

from benchmarks.serving_faults.asking import CANARY, Client, connected, read_all, request, texts
from benchmarks.serving_faults.target import NAME, Target

ROOT = Path("/sys/fs/cgroup/memory")
ROOM_BYTES = 32 << 20
"""Four times what the largest requests of `large` were seen to take."""
STREAM = {"model": NAME, "prompt": "a", "max_tokens": 100, "stream": True, "logprobs": 20}


class Group:
    """A control group of memory."""

    def __init__(self, path):
        self.path = path

    def number(self, name):
        """One of its counts."""
        return int((self.path / f"memory.{name}").read_text())

    def take(self, pid, room):
        """From now on the process may take so much more memory."""
        (self.path / "cgroup.procs").write_text(str(pid))
        (self.path / "memory.limit_in_bytes").write_text(str(self.number("usage_in_bytes") + room))


@contextlib.contextmanager
def group():
    """A group for as long as the block lasts; None where none can be made."""
    path = ROOT / f"serving-faults-{os.getpid()}"
    try:
        path.mkdir()
    except OSError:
        yield None
        return
    try:
        yield Group(path)
    finally:
        for _ in range(100):  # its last process may still be on its way out
            with contextlib.suppress(OSError):
                path.rmdir()
                break
            time.sleep(0.05)


def enough(folder, large):
    """What is wrong with a server that has room for its requests and no more, while many large ones come."""
    with group() as made, Target(folder) as target:
        client = Client(target.port).waited()
        first = texts(client.complete(CANARY))
        made.take(target.child.pid, ROOM_BYTES)
        for _ in range(5):
            large(target, client)
        if not target.is_alive:
            return [f"the server died with {target.child.code}"]
        problems = [f"{made.number('failcnt')} times at the limit"] if made.number("failcnt") else []
        problems += [] if texts(client.complete(CANARY)) == first else ["the canary answers otherwise"]
        return problems + client.conserved() + target.end()


def too_little(folder, large):
    """The kernel ends a server that has no room; what is wrong with what its readers and the next server say."""
    with group() as made, Target(folder) as target:
        client = Client(target.port).waited()
        first = texts(client.complete(CANARY))
        with connected(target.port) as plain:
            target.child.signal(signal.SIGSTOP)  # so that the answer is under way when it happens
            plain.sendall(request(STREAM))
            made.take(target.child.pid, 0)
            target.child.signal(signal.SIGCONT)
            with contextlib.suppress(OSError):
                large(target, client)
            told = read_all(plain)
        code = target.child.wait()
    with Target(folder) as target:
        again = texts(Client(target.port).waited().complete(CANARY))
    problems = [] if code == -signal.SIGKILL else [f"exit code {code}"]
    problems += [f"an answer looks whole: {told[-200:]!r}"] if b"[DONE]" in told else []
    return problems + ([] if again == first else ["the next server's canary answers otherwise"])


CASES = (("a control group with room enough", enough), ("a control group with no room", too_little))
