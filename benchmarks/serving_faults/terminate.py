"""S11: SIGTERM under load: what is under way ends or is told, nothing is silently cut; a second ends at once."""

import dataclasses
import os
import signal
import threading
import time

from benchmarks.faults.report import spread
from benchmarks.serving_faults.asking import Client, completion, connected, drawn, read_all, request
from benchmarks.serving_faults.target import LIMITS, Target, tiny
from cerebras_gpt.errors import STOPPED

DRAIN = dataclasses.replace(LIMITS, drain_seconds=0.5)
GRACE_SECONDS, AT_ONCE_SECONDS = 1.0, 0.5
READERS, LONGEST_SECONDS = 6, 0.8


class Reader(threading.Thread):
    """Asks again and again, streams and whole answers, short and endless, until nobody answers."""

    def __init__(self, port, draw, end_of_text):
        super().__init__(daemon=True)
        self.port, self.draw, self.bias = port, draw, {str(end_of_text): -100}
        self.cut, self.unanswered, self.ended, self.told = [], [], 0, 0

    def run(self):
        """Until the door is closed."""
        while True:
            streams, most = self.draw.random() < 0.6, self.draw.choice([5, 60, 4000])
            body = completion(self.draw, prompt="a", max_tokens=most, stream=streams, logit_bias=self.bias)
            try:
                with connected(self.port, 30) as plain:
                    sent = time.monotonic()
                    plain.sendall(request(body, headers=["Connection: close"]))
                    self.judge(read_all(plain), sent)
            except ConnectionError:
                return

    def judge(self, answer, sent):
        """Whether an answer came to its end."""
        head, _, content = answer.partition(b"\r\n\r\n")
        if not head:
            self.unanswered.append(sent)
            return
        if b"chunked" in head:
            is_whole = content.endswith(b"0\r\n\r\n") and b"data: [DONE]" in content
        else:
            length = int(head.lower().partition(b"content-length: ")[2].split()[0])
            is_whole = len(content) == length
        self.ended += is_whole
        self.told += b'"error"' in content
        if not is_whole:
            self.cut.append(answer[-200:])


def stopped(folder, draw, twice):
    """One server that is told to end under load: what is wrong, seconds to its end, and the readers."""
    with Target(folder, DRAIN, lm=tiny(4096)) as target:
        Client(target.port).waited()
        readers = [Reader(target.port, draw, target.lm.tokenizer.end_of_text) for _ in range(READERS)]
        for reader in readers:
            reader.start()
        time.sleep(draw.uniform(0, LONGEST_SECONDS))
        began = time.monotonic()
        target.child.signal(signal.SIGTERM)
        if twice:
            time.sleep(draw.uniform(0, 0.2))
            began = time.monotonic()
            target.child.signal(signal.SIGTERM)
        code = target.child.wait()
        seconds = time.monotonic() - began
        for reader in readers:
            reader.join(5)
    expected, most = (STOPPED, AT_ONCE_SECONDS) if twice else (0, DRAIN.drain_seconds + GRACE_SECONDS)
    problems = [] if code == expected else [f"exit code {code}: {target.said()[-300:]}"]
    problems += [f"{seconds:.2f} s to exit"] if seconds > most else []
    problems += ["a process is left"] if group_lives(target.child.pid) else []
    if not twice:
        problems += [f"cut: {one!r}" for reader in readers for one in reader.cut]
        early = [began - sent for reader in readers for sent in reader.unanswered if sent < began]
        problems += [f"asked {one:.3f} s before the signal and never answered" for one in early]
    return problems, seconds, readers


def group_lives(pid):
    """Whether anything of a process group is left."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


def campaign(report, folder, seed, numbers):
    """Random moments; every fourth time a second signal follows."""
    seconds, ended, told, after = {False: [], True: []}, 0, 0, 0
    for number in numbers:
        twice = number % 4 == 3
        problems, took, readers = stopped(folder, drawn(seed, number), twice)
        report.case(number, problems)
        seconds[twice].append(took)
        ended += sum(reader.ended for reader in readers)
        told += sum(reader.told for reader in readers)
        after += sum(len(reader.unanswered) for reader in readers)
    report.figures |= {
        "drain seconds": DRAIN.drain_seconds,
        "exit seconds": spread(seconds[False]),
        "exit seconds after a second signal": spread(seconds[True]),
        "answers that ended, with an error, never begun as the door closed": [ended, told, after],
    }
