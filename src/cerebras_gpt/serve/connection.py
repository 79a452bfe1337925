"""One connection: HTTP whose headers have to come soon and be short, and idle readers who make room for others."""

import asyncio
import http
import json
from collections.abc import MutableMapping

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from cerebras_gpt.serve.failure import Refusal
from cerebras_gpt.serve.guard import Receive, Send, respond
from cerebras_gpt.serve.limits import Limits

CROWDED = Refusal(503, "too many connections; try again later", code="crowded", retry_after=1)
YOUNG_SECONDS = 0.25
"""A connection that says nothing for less may have spoken already, and nobody has come to listen yet."""


async def crowded(_scope: MutableMapping[str, object], _receive: Receive, send: Send) -> None:
    """An application that has no room."""
    await respond(CROWDED.status, CROWDED.body, send, {**CROWDED.headers, "connection": "close"})


class Joined:
    """A transport that sends together what is written in one turn of the loop.

    Each send lets the engine have the interpreter and waits until it comes back: under load that is most of its time.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop, self._parts = transport, loop, list[bytes]()

    def write(self, data: bytes) -> None:
        """Keeps it until the turn is over."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        """Closes once all is sent."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        data = b"".join(self._parts)
        self._parts.clear()
        if data:
            self._transport.write(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


class Connection(H11Protocol):
    """HTTP/1.1 over one socket, as uvicorn speaks it, within limits."""

    def __init__(self, limits: Limits, idle: "dict[Connection, float]", **given: object) -> None:
        super().__init__(**given)  # type: ignore[arg-type]
        self.limits, self._idle = limits, idle
        self._clock: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way; part of its headers may have come."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the clock; the one that has been idle longest makes room if there are too many."""
        super().connection_made(Joined(transport, self.loop))  # type: ignore[arg-type]
        now = self.loop.time()
        if len(self.connections) > self.limits.connections:
            oldest = next(iter(self._idle), None)
            if oldest is not None and now - self._idle[oldest] >= YOUNG_SECONDS:
                del self._idle[oldest]
                oldest.transport.close()
            else:
                self.app = crowded  # type: ignore[assignment]
        self._idle[self] = now
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Headers have a time from their first byte; once they are there the guard watches the body."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Waits for the next request."""
        if not self.transport.is_closing():
            self._idle[self] = self.loop.time()
        super().on_response_complete()
        if not self.is_idle:  # the next one had come already
            self._idle.pop(self, None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clock."""
        self._stop_clock()
        self._idle.pop(self, None)
        super().connection_lost(exc)

    def _watch(self) -> None:
        if not self.is_idle:
            self._idle.pop(self, None)
            self._stop_clock()
        elif self._clock is None and not self.transport.is_closing():
            self._clock = self.loop.call_later(self.limits.read_seconds, self._late)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _late(self) -> None:
        self._clock = None
        if self.is_idle:
            has_begun = bool(self.conn.trailing_data[0])
            self._refuse(408, f"the headers did not come within {self.limits.read_seconds:g} seconds", has_begun)

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no HTTP, or has too much before its body."""
        if len(self.conn.trailing_data[0]) <= self.limits.header_bytes:
            return self._refuse(400, msg)
        self.transport.pause_reading()  # type: ignore[attr-defined]
        message = f"the headers are larger than {self.limits.header_bytes:,} bytes"
        self.loop.call_later(self.limits.oversize_seconds, self._refuse, 431, message)

    def _refuse(self, status: int, message: str, is_told: bool = True) -> None:
        """Ends the connection, with an answer unless one is under way already."""
        can_be_told = self.is_idle and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE, h11.ERROR)
        if is_told and can_be_told and not self.transport.is_closing():
            content = json.dumps(Refusal(status, message).body).encode()
            head = f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\nconnection: close\r\n"
            kind = f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
            self.transport.write((head + kind).encode() + content)
        self.transport.close()
