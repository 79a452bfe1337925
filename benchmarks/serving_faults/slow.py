"""S5: slow clients of every kind beside one honest one, whose answers may not be held up.

The others are a process of their own, and all kinds take turns with the honest client alone. What stalled readers cost
is held against readers who ask for the same and read it: what is computed for either is everybody's to bear.
"""

import contextlib
import dataclasses
import json
import random
import signal
import socket
import threading
import time

from benchmarks.faults import children
from benchmarks.serving_faults.asking import ROUTE, Client, completion, connected, read_all, request, share
from benchmarks.serving_faults.target import LIMITS, NAME, Target
from cerebras_gpt.serve.limits import Limits

HONEST_SECONDS, ROUNDS = 0.1, 3
"""For the 99th percentile of the honest client's answers of 8 tokens, whoever else is there."""
GROWTH_BYTES = 64 << 20
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
LONG = completion(random.Random(1), prompt="a", max_tokens=120, stream=True, logprobs=20)


class Trouble(threading.Thread):
    """One client of some kind, again and again until it is told to stop; notes the statuses that it was given."""

    def __init__(self, port, act, stop, statuses):
        super().__init__(daemon=True)
        self.port, self.act, self.stop, self.statuses = port, act, stop, statuses

    def run(self):
        """Until the end of the phase."""
        while not self.stop.is_set():
            with contextlib.suppress(OSError), connected(self.port, 20) as plain:
                self.act(plain, self.stop)
                told = read_all(plain) if self.act in TOLD else b""
                if told:
                    self.statuses[told[9:12].decode()] = self.statuses.get(told[9:12].decode(), 0) + 1


def trouble(port, act, n, told):
    """In a child: n clients of one kind until SIGTERM; leaves the statuses in a file."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    stop, statuses = threading.Event(), {}
    some = [Trouble(port, act, stop, statuses) for _ in range(n)]
    for one in some:
        one.start()
    signal.sigwait({signal.SIGTERM})
    stop.set()
    for one in some:
        one.join(25)
    told.write_text(json.dumps(statuses))


def drip(plain, stop, data, pause=0.2):
    """Sends byte after byte."""
    for at in range(len(data)):
        if stop.wait(pause):
            return
        plain.sendall(data[at : at + 1])


def slow_headers(plain, stop):
    """A byte of the headers now and then."""
    drip(plain, stop, HEAD * 20)


def slow_body(plain, stop):
    """A byte of the body now and then."""
    plain.sendall(HEAD + b"Content-Length: 5000\r\n\r\n")
    drip(plain, stop, b"{" * 5000)


def stalled_reader(plain, stop):
    """Asks for a long stream and never reads it."""
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    plain.sendall(request(LONG))
    stop.wait(2)


def reader(plain, stop):
    """Asks for the same as often and reads it."""
    plain.sendall(request(LONG, headers=["Connection: close"]))
    began = time.monotonic()
    read_all(plain)
    stop.wait(2 - time.monotonic() + began)


def idle(_, stop):
    """Says nothing."""
    stop.wait(20)


def long_headers(plain, _):
    """Headers of 1 MB."""
    plain.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * (1 << 20) + b"\r\n\r\n")


def long_body(plain, _):
    """A body of 2 MB, of which the length says so."""
    plain.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % (2 << 20) + b" " * (2 << 20))


TOLD = (slow_headers, slow_body, long_headers, long_body)
ALONE, READERS = "alone", "readers of the same"
PHASES = {
    ALONE: (None, 0),
    "slow headers": (slow_headers, 50),
    "slow bodies": (slow_body, 50),
    READERS: (reader, 4),
    "stalled readers": (stalled_reader, 4),
    "idle connections": (idle, 600),
    "headers of 1 MB": (long_headers, 1),
    "bodies of 2 MB": (long_body, 1),
}


def honest(client, seconds):
    """Seconds of each answer of one client that asks again and again."""
    ends, found = time.monotonic() + seconds, []
    body = {"model": NAME, "prompt": "The cat", "max_tokens": 8, "temperature": 0, "logit_bias": {"279": -100}}
    while time.monotonic() < ends:
        status, _, content, spent = client.ask(ROUTE, body)
        assert status == 200, content
        found.append(spent)
        time.sleep(0.01)
    return found


def phase(target, client, folder, seconds, act, n):
    """The honest client's seconds and the statuses of the others, while those are at it."""
    told = folder / "told.json"
    others = children.start(lambda: trouble(target.port, act, n, told), folder / "others.log")
    time.sleep(0.5)
    found = honest(client, seconds)
    others.signal(signal.SIGTERM)
    others.wait(30)
    client.settled()
    return found, json.loads(told.read_text())


def campaign(report, folder, seed, numbers):
    """Each kind, and the honest client alone, for as many seconds as there are numbers, in turns."""
    spent, told = {name: [] for name in PHASES}, {name: {} for name in PHASES}
    limits = dataclasses.replace(LIMITS, oversize_seconds=Limits.oversize_seconds)
    with Target(folder, limits) as target:
        client = Client(target.port).waited()
        honest(client, 2)
        before = target.memory
        for _ in range(ROUNDS):
            for name, (act, n) in PHASES.items():
                found, statuses = phase(target, client, folder, len(numbers) / ROUNDS, act, n)
                spent[name] += found
                told[name] = {status: told[name].get(status, 0) + n for status, n in statuses.items()}
        growth = target.memory - before
        report.case("memory", [] if growth < GROWTH_BYTES else [f"{growth} bytes grown"])
        report.case("conservation", client.conserved())
        report.case("end", target.end())
    p99 = {name: share(found, 0.99) for name, found in spent.items()}
    for name, found in spent.items():
        report.figures[name] = {
            "p50, p99 seconds": [share(found, 0.5), p99[name]],
            "times the p99 alone": round(p99[name] / p99[ALONE], 2),
            "answers": len(found),
            "told": told[name],
        }
        report.case(name, [] if p99[name] <= HONEST_SECONDS else [f"p99 {p99[name]} s, alone {p99[ALONE]} s"])
    report.figures |= {
        "stalled readers, times those who read": round(p99["stalled readers"] / p99[READERS], 2),
        "bytes grown": growth,
        "seed": seed,
    }
    statuses = {status for name in PHASES for status in told[name]}
    report.case("408, 413 and 431", [] if {"408", "413", "431"} <= statuses else [f"only {sorted(statuses)}"])
