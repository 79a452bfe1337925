"""The process that serves: sockets and signals."""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvicorn

from cerebras_gpt.errors import STOPPED
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.serve.app import Service, make_app
from cerebras_gpt.serve.connection import Connection
from cerebras_gpt.serve.guard import LOCAL, is_loopback
from cerebras_gpt.serve.limits import Limits
from cerebras_gpt.serve.worker import Worker

MOST_SLOTS = 64
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
    size = sum(network.slots(1, network.architecture.seq_len).kv.nbytes for network in networks)
    room = int(MEMORY_SHARE * lm.network.memory() / n_models) // size
    if room < 1:
        raise ValueError(f"one slot takes {size / 1e9:.2f} GB, more than memory allows; serve a smaller model")
    return min(wanted, room, MOST_SLOTS)


class Server(uvicorn.Server):
    """Ends in order at the first SIGTERM, at once at the second."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self._ending: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen; what is there by now stays, so the garbage collector need not look at it again."""
        await super().startup(sockets)
        gc.freeze()  # a look at everything holds all answers up for 0.1 s and more

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Takes SIGTERM and Ctrl-C for as long as it serves."""
        loop = asyncio.get_running_loop()
        # Not the loop's own handlers: their pipe is also the engines', and a signal that finds it full is lost.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, partial(self._end, loop))
        yield

    def _end(self, loop: asyncio.AbstractEventLoop, *_: object) -> None:
        """The first time it asks for an end in order, the second it ends."""
        if self.service.is_draining:
            os._exit(STOPPED)
        self.service.is_draining = True
        loop.call_soon_threadsafe(self._begin_to_end)

    def _begin_to_end(self) -> None:
        self._ending = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        """Lets what is under way come to its end, then ends the rest with an error."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.service.limits.drain_seconds
        while self.service.n_open and loop.time() < end:
            await asyncio.sleep(0.02)
        for worker in self.service.workers.values():
            worker.cancel_all()
        await asyncio.sleep(0.1)
        self.should_exit = True


def serve(
    models: Mapping[str, LM],
    address: Address,
    slots: int = MOST_SLOTS,
    limits: Limits | None = None,
    runs: Path | None = None,
) -> None:
    """Serves these models by their names until it is told to end."""
    limits = limits or Limits()
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
        http=partial(Connection, limits, {}),  # type: ignore[arg-type]
        ws="none",
        log_level="error",  # its warnings are of requests, of which anybody can send any number
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=limits.header_bytes,
    )
