"""The server under test: a forked process with a model of 30,000 parameters whose characters break over tokens."""

import os
import signal
import socket
import time
from functools import cache
from pathlib import Path

import torch

from benchmarks.faults import children
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.model.parametrization import Parametrization
from cerebras_gpt.serve.app import Service, make_app
from cerebras_gpt.serve.guard import LOCAL
from cerebras_gpt.serve.limits import Limits
from cerebras_gpt.serve.server import Address, Server, configured
from cerebras_gpt.serve.worker import Worker
from cerebras_gpt.text.tokenizer import train_tokenizer

NAME, SLOTS = "tiny", 8
PATIENCE_SECONDS = 15.0
"""Whoever gets no answer for so long has met a hang."""
LIMITS = Limits(queue=16, read_seconds=2.0, deadline_seconds=PATIENCE_SECONDS, oversize_seconds=0.01)
TEXT = "The cat sat on the mat. Für die Katze 🐈, 猫はマットの上。\n"


@cache
def tiny(seq_len=128):
    """Random weights over bytes and a few merges."""
    tokenizer = train_tokenizer([TEXT * 20], 280)
    architecture = Architecture(d_model=32, n_layers=2, n_heads=2, vocab_size=280, seq_len=seq_len)
    parametrization = Parametrization(2, architecture.d_head, base_init_std=0.3)
    model = initialize(GPT(architecture, parametrization), torch.Generator().manual_seed(0)).eval()
    lm = LM(model, tokenizer)
    assert lm.network  # made here, once: a fork does best to compute little before it serves
    return lm


def at_signal(worker, errand):
    """In the child: the engine's thread does this once SIGUSR1 has come."""
    # Not worker.run: it takes a lock that the thread which the signal interrupts may hold.
    signal.signal(signal.SIGUSR1, lambda *_: worker._errands.append(errand))


class Target:
    """One server for as long as the block lasts; `plant` may spoil it beforehand: it is given the worker."""

    def __init__(self, folder, limits=LIMITS, plant=None, lm=None, runs=None):
        self.limits, self.plant, self.lm, self.runs = limits, plant, lm or tiny(), runs
        self.log = Path(folder) / f"server-{time.monotonic_ns()}.log"
        with socket.socket(proto=socket.IPPROTO_TCP) as listening:  # named, or asyncio would leave Nagle's delay on
            listening.bind(("127.0.0.1", 0))
            listening.listen(2048)
            self.port = listening.getsockname()[1]
            self.child = children.start(lambda: self._serve(listening), self.log)

    def _serve(self, listening):
        """In the child: what the verb does, on a socket that is there already."""
        torch.set_num_threads(1)
        worker = Worker(NAME, self.lm, SLOTS, self.limits)
        service = Service([worker], self.limits, self.runs)
        server = Server(configured(make_app(service, LOCAL, None), Address(), self.limits), service)
        if self.plant is not None:
            self.plant(worker)
        server.run([listening])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.child.poll() is None:
            self.child.signal(signal.SIGCONT)
            self.child.kill()

    @property
    def is_alive(self):
        """Whether the process is there."""
        return self.child.poll() is None

    def said(self):
        """What it wrote to its screen."""
        return self.log.read_text("utf-8", errors="replace") if self.log.exists() else ""

    def status(self, key):
        """A number of /proc/PID/status; sizes in bytes."""
        lines = Path(f"/proc/{self.child.pid}/status").read_text().splitlines()
        number, *unit = next(line.split()[1:] for line in lines if line.startswith(f"{key}:"))
        return int(number) * (1024 if unit else 1)

    @property
    def memory(self):
        """Anonymous bytes, in memory or swapped out."""
        return self.status("RssAnon") + self.status("VmSwap")

    @property
    def descriptors(self):
        """Open files."""
        return len(os.listdir(f"/proc/{self.child.pid}/fd"))

    def end(self, seconds=PATIENCE_SECONDS):
        """SIGTERM as whoever runs it would; what is wrong with its end."""
        if not self.is_alive:
            return [f"the server died with {self.child.code}: {self.said()[-300:]}"]
        self.child.signal(signal.SIGTERM)
        code = self.child.wait(seconds)
        return [] if code == 0 else [f"the server ended with {code}: {self.said()[-300:]}"]
