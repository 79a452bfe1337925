"""S3: readers who leave, waiting, before the first token or at any byte: the slot is free at once."""

import socket
import time

from benchmarks.serving_faults.asking import Client, completion, connected, drawn, request, reset, share
from benchmarks.serving_faults.target import PATIENCE_SECONDS, SLOTS, Target

FREE_SECONDS = 0.25
KINDS = ("waiting", "at once", "after the head", "at some byte", "half")


def left(target, client, draw, kind):
    """One reader who leaves; what is wrong, and seconds until nothing of it was left."""
    body = completion(draw, prompt="a" * draw.randint(1, 100), max_tokens=120, stream=True, temperature=1.0)
    others = [connected(target.port) for _ in range(SLOTS if kind == "waiting" else 0)]
    for other in others:
        other.sendall(request(body))
    plain = connected(target.port)
    plain.sendall(request(body))
    if kind == "after the head":
        plain.recv(20)
    elif kind == "at some byte":
        plain.recv(draw.randint(1, 4000))
    elif kind == "half":
        plain.shutdown(socket.SHUT_WR)  # says nothing more but reads on: an honest client may do so
        while plain.recv(65536):
            pass
    for one in (*others, plain):
        reset(one)
    began = time.perf_counter()
    while (found := client.counts())["open"] or found["busy_slots"]:
        if time.perf_counter() - began > PATIENCE_SECONDS:
            return ["still open"], PATIENCE_SECONDS
    return [], time.perf_counter() - began


def campaign(report, folder, seed, numbers):
    """Kinds in turns; /metrics says when the slot is free."""
    seconds = {kind: [] for kind in KINDS}
    with Target(folder) as target:
        client = Client(target.port).waited()
        for number in numbers:
            kind = KINDS[number % len(KINDS)]
            problems, took = left(target, client, drawn(seed, number), kind)
            seconds[kind].append(took)
            report.case(number, problems, kind=kind)
        report.case("conservation", client.conserved())
        report.case("end", target.end())
    everything = [one for of_kind in seconds.values() for one in of_kind]
    figures = {"p50, p99 seconds": [share(everything, part) for part in (0.5, 0.99)]}
    p99 = figures["p50, p99 seconds"][1]
    report.case("in time", [f"p99 {p99} s, more than {FREE_SECONDS}"] if p99 > FREE_SECONDS else [])
    report.figures |= figures | {"p99 seconds by kind": {kind: share(of, 0.99) for kind, of in seconds.items()}}
