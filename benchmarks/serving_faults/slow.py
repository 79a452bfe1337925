"""S5: slow clients of every kind at once with one honest one, whose answers may not be held up."""

import contextlib
import random
import socket
import threading
import time

from benchmarks.serving_faults.asking import ROUTE, Client, completion, connected, read_all, request, share
from benchmarks.serving_faults.target import NAME, Target

HONEST_SECONDS = 0.1
"""For the 99th percentile of the honest client's answers of 8 tokens, whoever else is there."""
GROWTH_BYTES = 64 << 20
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


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
                    self.statuses[int(told[9:12])] = self.statuses.get(int(told[9:12]), 0) + 1


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
    plain.sendall(request(completion(random.Random(1), prompt="a", max_tokens=120, stream=True, logprobs=20)))
    stop.wait(2)


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
PHASES = {
    "slow headers": (slow_headers, 50),
    "slow bodies": (slow_body, 50),
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


def phase(target, client, seconds, act, n):
    """The honest client's seconds and the statuses of the others, while those are at it."""
    stop, statuses = threading.Event(), {}
    some = [Trouble(target.port, act, stop, statuses) for _ in range(n)]
    for one in some:
        one.start()
    time.sleep(0.5)
    found = honest(client, seconds)
    stop.set()
    for one in some:
        one.join(25)
    return found, statuses


def campaign(report, folder, seed, numbers):
    """The honest client alone, then beside each kind for as many seconds as there are numbers, then alone again."""
    seconds = len(numbers)
    with Target(folder) as target:
        client = Client(target.port).waited()
        honest(client, 2)
        alone, before = honest(client, seconds), target.memory
        for name, (act, n) in PHASES.items():
            found, statuses = phase(target, client, seconds, act, n)
            alone_now = share(alone, 0.99)
            times = share(found, 0.99) / alone_now
            figures = {"p50, p99 seconds": [share(found, 0.5), share(found, 0.99)], "told": statuses}
            report.figures[name] = figures | {"times the p99 alone": round(times, 2)}
            p99 = share(found, 0.99)
            report.case(name, [] if p99 <= HONEST_SECONDS else [f"p99 {p99} s, {times:.2f} times as long as alone"])
            client.settled()
        alone += honest(client, seconds)
        report.figures["alone p50, p99 seconds"] = [share(alone, 0.5), share(alone, 0.99)]
        growth = target.memory - before
        report.figures |= {"bytes grown": growth, "seed": seed}
        report.case("memory", [] if growth < GROWTH_BYTES else [f"{growth} bytes grown"])
        report.case("conservation", client.conserved())
        report.case("end", target.end())
    told = {status for name in PHASES for status in report.figures[name]["told"]}
    report.case("408, 413 and 431", [] if {408, 413, 431} <= told else [f"only {sorted(told)}"])
