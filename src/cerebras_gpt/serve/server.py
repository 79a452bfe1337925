"""The process that serves: sockets, signals, and the watch over the engines."""

import asyncio
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from cerebras_gpt.errors import OURS, STOPPED
from cerebras_gpt.generate.engine import MOST_SLOTS
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.generate.precision import Precision
from cerebras_gpt.generate.slots import slot_bytes
from cerebras_gpt.process import memory_at_hand
from cerebras_gpt.serve.app import Service, make_app
from cerebras_gpt.serve.guard import LOCAL, is_loopback
from cerebras_gpt.serve.limits import Limits
from cerebras_gpt.serve.worker import Worker

log = logging.getLogger("cerebras_gpt")
MEMORY_SHARE = 0.5
"""Of the memory at hand that all slots together may take."""


@dataclass(frozen=True)
class Address:
    """Where to listen, and who may ask for what."""

    host: str = "127.0.0.1"
    port: int = 8000
    key: str | None = None
    allowed_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.key:
            raise ValueError(f"{self.host} can be reached by others; give --api-key-file, or serve on 127.0.0.1")


def n_slots(lm: LM, wanted: int, n_models: int) -> int:
    """Slots that the memory at hand has room for, at most those wanted; raises ValueError if not even one."""
    networks = [lm.network, *([lm.draft.network] if lm.draft else [])]
    size = sum(slot_bytes(n.architecture, n.architecture.seq_len, n.dtype.itemsize) for n in networks)
    room = int(MEMORY_SHARE * memory_at_hand() / n_models) // size
    if room < 1:
        raise ValueError(f"one slot takes {size / 1e9:.2f} GB, more than memory allows; serve a smaller model")
    return min(wanted, room, 64)


def named(paths: Sequence[Path]) -> dict[str, Path]:
    """Each run by the name of its folder; raises ValueError if two are the same."""
    found = {path.resolve().name: path for path in paths}
    if len(found) < len(paths):
        raise ValueError("two runs have the same folder name; models are told apart by it: rename one")
    return found


class Protocol(H11Protocol):
    """HTTP whose headers have to come soon and be short."""

    read_seconds = Limits.read_seconds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the clock."""
        super().connection_made(transport)
        self._clock = self.loop.call_later(self.read_seconds, self._late)

    def _late(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clock."""
        self._clock.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no HTTP, or has too much before its body."""
        error = getattr(self.conn, "trailing_data", (b"", False))[0]
        if len(error) > Limits.header_bytes:
            body = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            self.transport.write(body)
            return self.transport.close()
        super().send_400_response(msg)


class Server(uvicorn.Server):
    """Ends in order at the first SIGTERM, at once at the second."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self._ending: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Takes SIGTERM and Ctrl-C for as long as it serves."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        watch = loop.create_task(self._watch())
        yield
        watch.cancel()

    def _end(self) -> None:
        if self._ending is not None:
            os._exit(STOPPED)
        self._ending = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        """Lets what is under way come to its end, then ends the rest with an error."""
        self.service.is_draining = True
        loop = asyncio.get_running_loop()
        end = loop.time() + self.service.limits.drain_seconds
        while self.service.n_open and loop.time() < end:
            await asyncio.sleep(0.02)
        for worker in self.service.workers.values():
            worker.cancel_all()
        await asyncio.sleep(0.1)
        self.should_exit = True

    async def _watch(self) -> None:
        """Ends the process when an engine hangs, for whoever watches it to start another."""
        limits = self.service.limits
        while True:
            await asyncio.sleep(0.5)
            for name, worker in self.service.workers.items():
                if worker.stalled_seconds > limits.exit_seconds and worker.has_begun:
                    log.critical("the engine of %s has not moved for %g seconds", name, limits.exit_seconds)
                    os._exit(OURS)


def serve(
    paths: Sequence[Path],
    address: Address,
    slots: int = MOST_SLOTS,
    limits: Limits | None = None,
    runs: Path | None = None,
    weights: Precision = "auto",
    draft: Path | None = None,
) -> None:
    """Serves the models of these runs until it is told to end; one draft may guess ahead for them all."""
    limits = limits or Limits()
    models = {name: LM.load(path, weights, draft) for name, path in named(paths).items()}
    workers = [Worker(name, lm, n_slots(lm, slots, len(models)), limits) for name, lm in models.items()]
    service = Service(workers, limits, runs)
    app = make_app(service, (*LOCAL, address.host, *address.allowed_hosts), address.key)
    Server(configured(app, address, limits), service).run()


def configured(app: object, address: Address, limits: Limits) -> uvicorn.Config:
    """How uvicorn is run."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        host=address.host,
        port=address.port,
        http=Protocol,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=limits.header_bytes,
    )
