"""One real server for the tests that talk to it."""

import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from cerebras_gpt.generate.lm import LM
from cerebras_gpt.serve.app import Service, make_app
from cerebras_gpt.serve.guard import LOCAL
from cerebras_gpt.serve.limits import Limits
from cerebras_gpt.serve.server import Address, Server, configured
from cerebras_gpt.serve.worker import Worker

LIMITS = Limits(queue=24, body_bytes=50_000, read_seconds=1.0, deadline_seconds=20.0)


class Running:
    """Models on a free port of this machine, in a thread."""

    def __init__(
        self,
        models: Mapping[str, LM],
        key: str | None = None,
        limits: Limits = LIMITS,
        slots: int = 8,
        runs: Path | None = None,
    ) -> None:
        self.workers = [Worker(name, lm, slots, limits) for name, lm in models.items()]
        self.worker = self.workers[0]
        self.service = Service(self.workers, limits, runs)
        app = make_app(self.service, LOCAL, key)
        self.server = Server(configured(app, Address(port=0), limits), self.service)
        self.server.capture_signals = nullcontext  # signals belong to the main thread
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def end(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        assert not self.thread.is_alive()

    def wait_until_idle(self) -> None:
        end = time.monotonic() + 10
        while any(worker.n_open for worker in self.workers) and time.monotonic() < end:
            time.sleep(0.005)
        assert {(worker.n_open, worker.n_busy) for worker in self.workers} == {(0, 0)}
