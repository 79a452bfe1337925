"""S14: memory, descriptors, threads, logs, clock and native code fail: one request fails, the server lives."""

import contextlib
import itertools
import logging
import os
import random
import resource
import signal
import threading
import time
from functools import partial

from benchmarks.serving_faults import control_group
from benchmarks.serving_faults.asking import CANARY, ROUTE, Client, connected, reset, texts
from benchmarks.serving_faults.target import NAME, Target, at_signal
from cerebras_gpt.errors import OURS
from cerebras_gpt.generate.answer import Answer
from cerebras_gpt.generate.engine import Engine
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.serve import reply
from cerebras_gpt.text.tokenizer import Tokenizer

WORDS = {"model": NAME, "prompt": "The cat", "max_tokens": 20, "temperature": 0, "logit_bias": {"279": -100}}
TEXTS = {"model": NAME, "input": "The cat"}
HEALS_SECONDS = 5.0


class Panic(BaseException):
    """What a panic of native code is in Python: no Exception."""


class Armed:
    """A function that fails once when SIGUSR1 has come."""

    def __init__(self, owner, name, error):
        self.plain, self.error, self.fails = getattr(owner, name), error, False
        setattr(owner, name, lambda *given, **named: self.call(*given, **named))
        signal.signal(signal.SIGUSR1, lambda *_: setattr(self, "fails", True))

    def call(self, *given, **named):
        """Fails, or does what it always did."""
        if self.fails:
            self.fails = False
            raise self.error("planted")
        return self.plain(*given, **named)


def fails(owner, name, error):
    """A plant: what the owner does fails once."""
    return lambda _: Armed(owner, name, error)


def engine_cannot_be_made(times):
    """The engine fails, and so often there is no memory for another cache."""

    def plant(worker):
        make, tries = worker.lm.engine, []

        def scarce(n_slots):
            tries.append(n_slots)
            if len(tries) <= times:
                raise MemoryError("planted")
            return make(n_slots)

        def fail():
            worker.lm.engine = scarce
            raise SystemError("planted")

        at_signal(worker, fail)

    return plant


def limited(kind, room):
    """At the signal the process may take only so much more memory."""

    def plant(_):
        def limit(*_):
            key = {resource.RLIMIT_AS: "VmSize", resource.RLIMIT_DATA: "VmData"}[kind]
            with open("/proc/self/status") as lines:
                now = next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
            resource.setrlimit(kind, (now + room, resource.RLIM_INFINITY))

        signal.signal(signal.SIGUSR1, limit)

    return plant


def few_descriptors(_):
    """24 more than are open by now, of which a forked process may have inherited any number."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    taken = {int(name) for name in os.listdir("/proc/self/fd")}
    limit = next(itertools.islice((n for n in itertools.count() if n not in taken), 24, None))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def no_threads(_):
    """After the signal no thread can be started."""

    def refuse(*_):
        def start(self):
            raise RuntimeError("can't start new thread")

        threading.Thread.start = start

    signal.signal(signal.SIGUSR1, refuse)


def writes_to(open_it):
    """What the server says goes where nothing can be written, and it has something to say."""

    def plant(worker):
        descriptor = open_it()
        for number in (1, 2):
            os.dup2(descriptor, number)

        def fail():
            logging.getLogger("cerebras_gpt").error("a line of %d bytes: %s", 1 << 16, "x" * (1 << 16))
            raise SystemError("planted")

        at_signal(worker, fail)

    return plant


def nobody_reads():
    """A pipe whose reader is gone."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def clock(seconds):
    """At the signal the clock jumps."""

    def plant(_):
        plain = time.time
        signal.signal(signal.SIGUSR1, lambda *_: setattr(time, "time", lambda: plain() + seconds))

    return plant


def held_up(worker):
    """At the signal the loop that answers is held up for a second."""
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(1.0))


def nothing(_):
    """No plant."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def storm(target, _):
    """Connections that come and are reset, two hundred at once."""
    for _ in range(5):
        some = [connected(target.port) for _ in range(200)]
        for one in some:
            with contextlib.suppress(OSError):
                one.sendall(b"POST /v1/comp")
            reset(one)


def crowd(target, client):
    """More connections than there are descriptors, each with a request."""
    some = [connected(target.port, 1) for _ in range(60)]
    for one in some:
        with contextlib.suppress(OSError):
            one.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    time.sleep(0.3)
    for one in some:
        reset(one)
    client.kept = None


def large(target, client):
    """Requests that need memory."""
    for _ in range(4):
        with contextlib.suppress(OSError):
            client.ask(ROUTE, {**WORDS, "n": 16, "logprobs": 20, "prompt": "a" * 120})
        with contextlib.suppress(OSError):
            client.ask("/v1/embeddings", {**TEXTS, "input": ["a" * 120] * 256})


def plain(_, client):
    """A request, and some texts."""
    for path, body in ((ROUTE, WORDS), ("/v1/embeddings", TEXTS), (ROUTE, {**WORDS, "stream": True})):
        with contextlib.suppress(OSError):
            client.ask(path, body)


CASES = {
    "address space of 4 MB more": (limited(resource.RLIMIT_AS, 4 << 20), large),
    "address space of 64 kB more": (limited(resource.RLIMIT_AS, 64 << 10), large),
    "data of 4 MB more": (limited(resource.RLIMIT_DATA, 4 << 20), large),
    "24 more descriptors": (few_descriptors, crowd),
    "no more threads": (no_threads, plain),
    "a full disk for the log": (writes_to(lambda: os.open("/dev/full", os.O_WRONLY)), plain),
    "nobody reads the log": (writes_to(nobody_reads), plain),
    "the log cannot be written": (writes_to(lambda: os.open("/dev/null", os.O_RDONLY)), plain),
    "a panic of the tokenizer as it encodes": (fails(Tokenizer, "encode", Panic), plain),
    "a panic of the tokenizer as it decodes": (fails(Tokenizer, "decode_bytes", Panic), plain),
    "no memory as a text is encoded": (fails(Tokenizer, "encode", MemoryError), plain),
    "no memory in a step": (fails(Engine, "step", MemoryError), plain),
    "no memory as an answer is taken": (fails(Engine, "submit", MemoryError), plain),
    "no memory in an embedding": (fails(LM, "embed", MemoryError), plain),
    "a panic in an embedding": (fails(LM, "embed", Panic), plain),
    "no memory as a piece is told": (fails(Answer, "pull", MemoryError), plain),
    "no memory as an event is written": (fails(reply.Reply, "_choice", MemoryError), plain),
    "no cache for another engine, twice": (engine_cannot_be_made(2), plain),
    "no randomness": (fails(os, "urandom", OSError), plain),
    "the clock a day ahead": (clock(86_400), plain),
    "the clock ten years back": (clock(-3.2e8), plain),
    "the loop held up for a second": (held_up, plain),
    "a storm of connections that are reset": (nothing, storm),
}


def survived(target, disturb):
    """What is wrong with a server that must live through this."""
    client = Client(target.port).waited()
    first = texts(client.complete(CANARY))
    target.child.signal(signal.SIGUSR1)
    time.sleep(0.1)
    disturb(target, client)
    if not target.is_alive:
        return [f"the server died with {target.child.code}: {target.said()[-600:]}"]
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        resource.prlimit(target.child.pid, kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    client.kept = None
    client.waited(HEALS_SECONDS)
    problems = [] if texts(client.complete(CANARY)) == first else ["the canary answers otherwise"]
    return problems + client.conserved() + target.end()


def never_again(folder):
    """No memory for another cache, ever: health is red, what is under way is told, the process ends."""
    with Target(folder, plant=engine_cannot_be_made(10**9)) as target:
        Client(target.port).waited()
        began = time.monotonic()
        target.child.signal(signal.SIGUSR1)
        code = target.child.wait()
        seconds = time.monotonic() - began
    return ([] if code == OURS else [f"exit code {code}"]) + ([f"{seconds:.1f} s"] if seconds > 7 else [])


def no_thread_at_all(folder):
    """No thread can be started as the server starts: it ends with a line, and hangs not."""

    def plant(_):
        def start(self):
            raise RuntimeError("can't start new thread")

        threading.Thread.start = start

    with Target(folder, plant=plant) as target:
        code = target.child.wait(HEALS_SECONDS)
        said = "can't start new thread" in target.said()
    return ([] if code else ["exit code 0"]) + ([] if said else [f"said {target.said()[-300:]!r}"])


def campaign(report, folder, seed, numbers):
    """Every case once; the order is drawn."""
    cases = [*CASES.items(), ("no cache for another engine, ever", never_again), ("no thread", no_thread_at_all)]
    with control_group.group() as made:
        if made is None:
            report.figures["left out"] = "no control group of memory can be made here"
        else:
            cases += [(name, partial(case, large=large)) for name, case in control_group.CASES]
    random.Random(seed).shuffle(cases)
    for number in [number for number in numbers if number < len(cases)]:
        name, case = cases[number]
        try:
            if callable(case):
                problems = case(folder)
            else:
                with Target(folder, plant=case[0]) as target:
                    problems = survived(target, case[1])
        except (OSError, ValueError, KeyError) as error:
            problems = [f"{type(error).__name__}: {error}"]
        report.case(f"{number} {name}", problems)
    report.figures["cases"] = len(report.cases)
