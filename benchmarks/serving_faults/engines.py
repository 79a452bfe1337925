"""S12: engines that raise, hang, loop or are gone, processes that are stopped: health tells, it heals or ends."""

import signal
import threading
import time

from benchmarks.faults.report import spread
from benchmarks.serving_faults.asking import CANARY, Client, completion, connected, drawn, read_all, request, texts
from benchmarks.serving_faults.target import Target, at_signal, tiny
from cerebras_gpt.errors import OURS

RED_SECONDS = 2.0
END_SECONDS = 7.0
"""Two seconds until health is red, and five more."""
STOPPED_SECONDS = 3.0
ERRORS = (SystemError, MemoryError, RuntimeError, KeyError, KeyboardInterrupt, SystemExit)


def raising(_, draw):
    """One round raises."""
    error = draw.choice(ERRORS)

    def fail():
        raise error("planted")

    return fail


def hanging(*_):
    """The engine waits for a lock that nobody gives back."""
    lock = threading.Lock()
    lock.acquire()
    return lock.acquire


def looping(*_):
    """The engine computes for ever, and wants the interpreter for itself."""

    def loop():
        while True:
            pass

    return loop


def gone(worker, draw):
    """The engine's thread ends."""
    worker._start_anew = raising(worker, draw)
    return raising(worker, draw)


FAULTS = {"raising": raising, "hanging": hanging, "looping": looping, "gone": gone, "stopped": None}
HEALS = ("raising", "stopped")


def status(port, seconds=1.0):
    """What /health says now; 0 if nothing comes."""
    try:
        with connected(port, seconds) as plain:
            plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return int(plain.recv(65536)[9:12])
    except OSError:
        return 0


class Stream(threading.Thread):
    """An answer that is under way when it happens."""

    def __init__(self, target, draw):
        super().__init__(daemon=True)
        bias = {str(target.lm.tokenizer.end_of_text): -100}
        self.body = completion(draw, prompt="a", max_tokens=4000, stream=True, logit_bias=bias)
        self.plain, self.told = connected(target.port, 30), b""
        self.plain.sendall(request(self.body, headers=["Connection: close"]))
        self.plain.recv(1)

    def run(self):
        """Reads to the end."""
        self.told = read_all(self.plain)
        self.plain.close()


def happened(target, kind, draw, red):
    """What is wrong after the fault; `red` gets the seconds until health was no longer 200."""
    client = Client(target.port).waited()
    first = texts(client.complete(CANARY))
    stream = Stream(target, draw)
    stream.start()
    time.sleep(draw.uniform(0, 0.2))
    began = time.monotonic()
    target.child.signal(signal.SIGSTOP if kind == "stopped" else signal.SIGUSR1)
    problems = []
    if kind != "raising":
        while (found := status(target.port)) == 200 and time.monotonic() - began < END_SECONDS:
            time.sleep(0.02)
        red.append(time.monotonic() - began)
        problems += [f"health {found} after {red[-1]:.2f} s"] if found == 200 or red[-1] > RED_SECONDS else []
    if kind == "stopped":
        time.sleep(max(0.0, draw.uniform(1, 2) * STOPPED_SECONDS - time.monotonic() + began))
        target.child.signal(signal.SIGCONT)
    if kind in HEALS:
        client.waited(5)
        problems += [] if texts(client.complete(CANARY)) == first else ["the canary answers otherwise"]
        stream.join(15)
        words = b'"code": "failed"' if kind == "raising" else b"data: [DONE]"
        problems += [] if words in stream.told else [f"the stream ended with {stream.told[-200:]!r}"]
        return problems + client.conserved() + target.end()
    code = target.child.wait()
    seconds = time.monotonic() - began
    problems += [f"exit code {code}"] if code != OURS else []
    return problems + ([f"{seconds:.1f} s to its end"] if seconds > END_SECONDS else [])


def campaign(report, folder, seed, numbers):
    """Kinds in turns, each with a stream under way."""
    red = {kind: [] for kind in FAULTS}
    for number in numbers:
        kind, draw = [*FAULTS][number % len(FAULTS)], drawn(seed, number)

        def plant(worker, kind=kind, draw=draw):
            if FAULTS[kind] is not None:
                errand = FAULTS[kind](worker, draw)
                at_signal(worker, errand)

        with Target(folder, plant=plant, lm=tiny(4096)) as target:
            report.case(number, happened(target, kind, draw, red[kind]), kind=kind)
    report.figures["seconds until health was red"] = {kind: spread(found) for kind, found in red.items() if found}
