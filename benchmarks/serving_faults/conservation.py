"""S12: accepted = completed + cancelled + failed, exact, with readers who leave, refusals and engines that fail."""

import signal
from concurrent.futures import ThreadPoolExecutor

from benchmarks.serving_faults.asking import CANARY, ROUTE, Client, completion, connected, drawn, request, reset, texts
from benchmarks.serving_faults.target import Target, at_signal

CLIENTS, FAILURE_EVERY = 4, 1000


def one(target, client, draw):
    """One request; what is wrong with its answer."""
    kind, allowed = draw.randrange(20), (200, 429, 500)
    if kind == 0:
        with connected(target.port) as plain:
            plain.sendall(request(completion(draw, prompt="a", max_tokens=60, n=draw.randint(1, 4), stream=True)))
            if draw.random() < 0.5:
                plain.recv(draw.randint(1, 500))
            reset(plain)
        return []
    if kind == 1:
        status, *_ = client.ask(ROUTE, completion(draw, max_tokens=-1))
        allowed = (400, 429)
    else:
        body = completion(draw, max_tokens=draw.randint(1, 6), n=draw.choice([1, 1, 1, 4]), stream=kind == 2)
        status, *_ = client.ask(ROUTE, body)
    return [] if status in allowed else [f"{status} for kind {kind}"]


def planted(worker):
    """At SIGUSR1 the engine fails."""

    def fail():
        raise SystemError("planted")

    at_signal(worker, fail)


def campaign(report, folder, seed, numbers):
    """Four clients at once; the engine fails once in a thousand requests."""
    with Target(folder, plant=planted) as target:
        client = Client(target.port).waited()
        first = texts(client.complete(CANARY))

        def some(start):
            mine, found = Client(target.port), []
            for number in numbers[start::CLIENTS]:
                if number % FAILURE_EVERY == FAILURE_EVERY // 2:
                    target.child.signal(signal.SIGUSR1)
                found.append((number, one(target, mine, drawn(seed, number))))
            return found

        with ThreadPoolExecutor(CLIENTS) as pool:
            for found in pool.map(some, range(CLIENTS)):
                for number, problems in found:
                    report.case(number, problems)
        report.case("conservation", client.conserved())
        report.case("canary", [] if texts(client.complete(CANARY)) == first else ["the canary answers otherwise"])
        told = client.settled()
        report.figures["counts"] = {name: int(value) for name, value in told.items() if name.endswith("_total")}
        report.case("slots", [f"{told['busy_slots']:g} busy"] if told["busy_slots"] else [])
        report.case("end", target.end())
