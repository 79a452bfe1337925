"""S13: clients that stream for an hour: none fails or starves, nothing grows, the last answer is as quick as the first.

A machine may do other work beside it, or stop the clients. So all waits are in seconds of the server's own processor
time, and the speed is judged where others took little of the cores; it is told in any case.
"""

import json
import os
import statistics
import threading
import time
from array import array
from pathlib import Path
from typing import NamedTuple

from benchmarks.serving_faults.asking import CANARY, Client, completion, connected, drawn, request, share, texts
from benchmarks.serving_faults.target import Target
from cerebras_gpt.serve.limits import Limits

CLIENTS, SAMPLES = 12, 100
"""More clients than slots, so that some always wait."""
BYTES_PER_REQUEST = 1024
SPEED, FEWEST, WAIT_SECONDS, OTHERS = 0.95, 0.5, 5.0, 0.05
"""Of the first fifth's tokens per second; of the median client's answers; to a first token; of the cores' time."""
LIMITS = Limits(queue=CLIENTS)
"""With the deadlines of a server, not those of the other campaigns: on a busy machine an answer may take long."""
LAST = b"data: [DONE]\n\n\r\n0\r\n\r\n"


class Listener(threading.Thread):
    """Streams one answer after the other over one connection until told to stop."""

    def __init__(self, target, seed, number, stop):
        super().__init__(daemon=True)
        self.target, self.seed, self.number, self.stop = target, seed, number, stop
        self.bias = {str(target.lm.tokenizer.end_of_text): -100}
        self.plain, self.tokens, self.failures = None, 0, []
        self.begun, self.waits, self.spent = array("d"), array("d"), array("d")

    def run(self):
        """Each answer is drawn from the seed, the client's number and its own."""
        while not self.stop.is_set():
            draw = drawn(self.seed, f"{self.number} {len(self.begun)}")
            most = draw.randint(4, 100)
            options = {"stream": True, "stream_options": {"include_usage": True}, "logit_bias": self.bias}
            began = processor_seconds(self.target)
            try:
                told, wait = self.listened(request(completion(draw, max_tokens=most, **options)))
            except OSError as error:
                told, wait, self.plain = repr(error).encode(), 0.0, None
            self.begun.append(began)
            self.waits.append(wait)
            self.spent.append(processor_seconds(self.target) - began)
            self.judge(told, most)
        if self.plain is not None:
            self.plain.close()

    def listened(self, data):
        """All that is told, and the seconds to the first event; a connection that was closed is opened again, once."""
        began = processor_seconds(self.target)
        for fresh in (self.plain is None, True):
            self.plain = connected(self.target.port, LIMITS.deadline_seconds) if fresh else self.plain
            told, wait = bytearray(), None
            try:
                self.plain.sendall(data)
                while not told.endswith(LAST) and (part := self.plain.recv(65536)):
                    told += part
                    wait = processor_seconds(self.target) - began if wait is None and b"data: " in told else wait
            except ConnectionError:
                if fresh:
                    raise
            if told or fresh:
                break
        return bytes(told), wait or 0.0

    def judge(self, told, most):
        """Counts the tokens of an answer that came to its end; notes any other."""
        if told.endswith(LAST) and b" 200 " in told[:20] and b'"error"' not in told:
            usage = json.loads(told.rsplit(b"data: ", 2)[1].partition(b"\n")[0])["usage"]
            self.tokens += usage["completion_tokens"]
            if usage["completion_tokens"] <= most:
                return
        self.failures.append(f"{told[:100]!r} ... {told[-200:]!r}")
        self.plain = None


class Sample(NamedTuple):
    """What was so far."""

    wall: float
    processor: float
    busy: float
    """Of all cores, whoever had them."""
    ours: float
    """Of them, the server's and the clients'."""
    tokens: int
    answers: int
    memory: int


def processor_seconds(target):
    """Of the server until now, by the clock that Linux keeps of every process."""
    return time.clock_gettime(~target.child.pid << 3 | 2)


def busy_seconds():
    """Of all cores until now."""
    user, nice, system = map(int, Path("/proc/stat").read_text().split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def sample(target, listeners):
    """What was until now."""
    tokens, answers = sum(one.tokens for one in listeners), sum(len(one.begun) for one in listeners)
    seconds = processor_seconds(target)
    ours = seconds + time.process_time()
    return Sample(time.monotonic(), seconds, busy_seconds(), ours, tokens, answers, target.memory)


def watched(target, listeners, seconds, first, client):
    """Samples until the time is over, and what is wrong with the canary."""
    samples, problems, began = [], [], time.monotonic()
    for number in range(SAMPLES + 1):
        time.sleep(max(0.0, began + number * seconds / SAMPLES - time.monotonic()))
        samples.append(sample(target, listeners))
        problems += [] if texts(client.complete(CANARY)) == first else [f"other words at sample {number}"]
    return samples, problems


def fifths(samples, listeners):
    """Figures of each fifth of the time."""
    rows, n = [], SAMPLES // 5
    done = sorted((b + s, w, s) for one in listeners for b, w, s in zip(one.begun, one.waits, one.spent, strict=False))
    for at in range(0, SAMPLES, n):
        first, last = samples[at], samples[at + n]
        of = [(wait, spent) for ended, wait, spent in done if first.processor < ended <= last.processor]
        rows.append(
            {
                "tokens per second": round((last.tokens - first.tokens) / (last.wall - first.wall), 1),
                "tokens per processor second": round(
                    (last.tokens - first.tokens) / (last.processor - first.processor), 1
                ),
                "first token p50, p99": [share([wait for wait, _ in of], part) for part in (0.5, 0.99)],
                "answer p50, p99": [share([spent for _, spent in of], part) for part in (0.5, 0.99)],
                "megabytes": round(last.memory / 1e6, 1),
            }
        )
    return rows


def campaign(report, folder, seed, numbers):
    """As many seconds as there are numbers."""
    stop = threading.Event()
    with Target(folder, LIMITS) as target:
        client = Client(target.port, LIMITS.deadline_seconds).waited()
        first = texts(client.complete(CANARY))
        base = (target.descriptors, target.status("Threads"))
        listeners = [Listener(target, seed, number, stop) for number in range(CLIENTS)]
        for one in listeners:
            one.start()
        time.sleep(min(20.0, len(numbers) / 20))  # what stays is there before it is measured
        samples, problems = watched(target, listeners, len(numbers), first, client)
        stop.set()
        for one in listeners:
            one.join(LIMITS.deadline_seconds)
        client.settled()
        time.sleep(0.5)
        found = (target.descriptors, target.status("Threads"))
        report.case("canary", problems)
        report.case("descriptors and threads", [f"{base} before, {found} after"] if found > base else [])
        report.case("conservation", client.conserved())
        report.case("end", target.end())
    judge(report, samples, listeners)


def judge(report, samples, listeners):
    """What must hold over the whole time."""
    rows, counts = fifths(samples, listeners), [len(one.begun) for one in listeners]
    first, last, name = samples[0], samples[-1], "tokens per second"
    others = 1 - (last.ours - first.ours) / (last.busy - first.busy)
    kept, wait = rows[-1][name] / rows[0][name], max(wait for one in listeners for wait in one.waits)
    settled = samples[SAMPLES // 5 :]
    slope = statistics.linear_regression([one.answers for one in settled], [one.memory for one in settled]).slope
    report.case("failures", [problem for one in listeners for problem in one.failures][:20])
    report.case("memory", [f"{slope:.0f} bytes per answer"] if slope > BYTES_PER_REQUEST else [])
    if others < OTHERS:
        report.case("speed", [f"{kept:.3f} of the first fifth's"] if kept < SPEED else [])
    is_starved = min(counts) < FEWEST * statistics.median(counts) or wait > WAIT_SECONDS
    report.case("none starved", [f"{counts} answers, {wait:.1f} s to a first token"] if is_starved else [])
    report.figures |= {
        "clients, answers, tokens": [CLIENTS, sum(counts), last.tokens],
        "answers of the least and the most served": [min(counts), max(counts)],
        "longest wait for a first token": round(wait, 3),
        "speed of the last fifth in the first's": round(kept, 3),
        "bytes per answer": round(slope, 1),
        "processor seconds of the server": round(last.processor - first.processor, 1),
        "others' share of the time that the cores were busy": round(others, 3),
        "fifths": rows,
    }
