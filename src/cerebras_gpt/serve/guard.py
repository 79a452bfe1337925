"""At the door: who may come in, from where, and with how much."""

import asyncio
import hmac
import ipaddress
import json
import logging
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import TypeAlias

from cerebras_gpt.serve.failure import BROKEN, Refusal
from cerebras_gpt.serve.limits import Limits

Message: TypeAlias = MutableMapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[MutableMapping[str, object], Receive, Send], Awaitable[None]]

log = logging.getLogger("cerebras_gpt")
PUBLIC = ("/", "/health", *(f"/page/{name}" for name in ("style.css", "key.js", "app.js", "runs.html", "runs.js")))
"""The only paths that need no key."""
LOCAL = ("localhost", "127.0.0.1", "::1")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
UNREAD = (408, 413)
"""Refusals of a body whose rest nobody waits for."""
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Checks host, key, kind and size of every request before anything reads it, and sets the headers of answers."""

    def __init__(
        self, app: App, hosts: Collection[str], key: str | None, limits: Limits, check_room: Callable[[], None]
    ) -> None:
        self.app, self.hosts, self.limits = app, frozenset(host.lower() for host in hosts), limits
        self._check_room = check_room
        self._key = key.encode() if key else None

    async def __call__(self, scope: MutableMapping[str, object], receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        has_begun = False

        async def dressed(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                message["headers"] = [*message.get("headers", []), *HEADERS]  # type: ignore[misc]
            async with asyncio.timeout(self.limits.write_seconds):
                await send(message)

        try:
            body = await self._admitted(scope, receive)
        except Refusal as refusal:
            ends = {"connection": "close"} if refusal.status in UNREAD else {}
            return await respond(refusal.status, refusal.body, dressed, {**refusal.headers, **ends})
        try:
            await self.app(scope, replayed(body, receive), dressed)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a panic of native code is no Exception
            if has_begun:  # uvicorn tells of it and closes the connection
                raise
            log.error("a request failed: %s", type(error).__name__, exc_info=True)
            await respond(BROKEN.status, BROKEN.body, dressed)

    async def _admitted(self, scope: MutableMapping[str, object], receive: Receive) -> bytes:
        """The body of a request that may come in."""
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])  # type: ignore[call-overload]
        self._check_host([value for name, value in headers if name == b"host"])
        if scope["path"] not in PUBLIC:
            self._check_key([value for name, value in headers if name == b"authorization"])
        if scope["method"] == "POST":
            kind = dict(headers).get(b"content-type", b"").split(b";")[0].strip().lower()
            if kind != b"application/json":
                raise Refusal(415, "the content type must be application/json")
            self._check_room()  # before its body is read: under overload most of the work would be to read in vain
        length = dict(headers).get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.limits.body_bytes:
            raise await self._too_large()
        try:
            async with asyncio.timeout(self.limits.read_seconds):
                return await self._read(receive)
        except TimeoutError:
            raise Refusal(408, f"the body did not come within {self.limits.read_seconds:g} seconds") from None

    def _check_host(self, given: list[bytes]) -> None:
        """Refuses names that others may have pointed at this machine (DNS rebinding)."""
        name = given[0].decode("latin-1").lower() if len(given) == 1 else ""
        bare = name[1 : name.find("]")] if name.startswith("[") else name.partition(":")[0]
        if bare not in self.hosts:
            raise Refusal(403, "this host name is not served here; see --allow-host")

    def _check_key(self, given: list[bytes]) -> None:
        if self._key is None:
            return
        scheme, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._key):
            raise Refusal(
                401, "the API key is missing or wrong; send it as Authorization: Bearer KEY", code="invalid_api_key"
            )

    async def _read(self, receive: Receive) -> bytes:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refusal(400, "the connection ended inside the body")
            body += message.get("body", b"")  # type: ignore[arg-type]
            if len(body) > self.limits.body_bytes:
                raise await self._too_large()
            if not message.get("more_body"):
                return bytes(body)

    async def _too_large(self) -> Refusal:
        await asyncio.sleep(self.limits.oversize_seconds)
        return Refusal(413, f"the body is larger than {self.limits.body_bytes:,} bytes")


def replayed(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read already, then what follows."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return first.pop() if first else await receive()

    return again


async def respond(status: int, body: object, send: Send, headers: dict[str, str] | None = None) -> None:
    """Sends one JSON answer."""
    data = json.dumps(body).encode()
    plain = {"content-type": "application/json", "content-length": str(len(data)), **(headers or {})}
    pairs = [(name.lower().encode(), value.encode()) for name, value in plain.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": data})
