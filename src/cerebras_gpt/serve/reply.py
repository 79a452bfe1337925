"""From pieces to an HTTP answer: one JSON document, or events as they come; a reader who leaves ends the work."""

import asyncio
import json
import math
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cerebras_gpt.generate.answer import Piece
from cerebras_gpt.generate.request import Choice
from cerebras_gpt.serve.failure import Refusal
from cerebras_gpt.serve.guard import respond
from cerebras_gpt.serve.inbox import Inbox, pace, together
from cerebras_gpt.serve.protocol import Ask
from cerebras_gpt.serve.worker import Job, Worker

Document = dict[str, object]


@dataclass(eq=False)
class Reply(Response):
    """The answers to one request; an ASGI response."""

    background = None

    worker: Worker
    ask: Ask
    is_chat: bool
    streams: bool
    tells_usage: bool
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def submit(self) -> "Reply":
        """Hands the work to the engine, or is refused."""
        self._inbox = Inbox(asyncio.get_running_loop(), lambda: pace(self.worker.n_open) if self.streams else math.inf)
        self._jobs = self.worker.submit(self.ask.requests, self.ask.stop, self._inbox.put)
        self._offsets = [0] * len(self._jobs)
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends what comes until all is there or the reader is gone."""
        work = asyncio.create_task(self._stream(send) if self.streams else self._whole(send))
        gone = asyncio.create_task(left(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        except (TimeoutError, OSError):
            pass  # the reader takes nothing any more
        finally:
            self.worker.cancel(self._jobs)
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    async def _parts(self) -> AsyncIterator[tuple[int, Piece]]:
        """Pieces with the number of their answer, until the last of each; a failure is raised."""
        n_left = len(self._jobs)
        while n_left:
            found = await self._inbox.take()
            tells_tokens = self.ask.requests[0].n_top is not None  # then each has an event of its own
            for job, piece in found if tells_tokens else together(found):
                if piece.reason in ("cancelled", "failed"):
                    raise failed(job, piece.reason)
                n_left -= piece.reason is not None
                yield self._jobs.index(job), piece

    async def _whole(self, send: Send) -> None:
        pieces: list[list[Piece]] = [[] for _ in self._jobs]
        try:
            async for index, piece in self._parts():
                pieces[index].append(piece)
        except Refusal as refusal:
            return await respond(refusal.status, refusal.body, send, refusal.headers)
        choices = []
        for index, parts in enumerate(pieces):
            text, made = "".join(part.text for part in parts), [one for part in parts for one in part.choices]
            choices.append(self._choice(index, Piece(text, made, parts[-1].reason), is_first=True))
        await respond(200, {**self._head(), "choices": choices, "usage": self._usage()}, send)

    async def _stream(self, send: Send) -> None:
        kind = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        begun: set[int] = set()
        try:
            async for index, piece in self._parts():
                if piece.text or piece.choices or piece.reason:
                    part = self._choice(index, piece, is_first=index not in begun)
                    begun.add(index)
                    await self._event(send, {**self._head(), "choices": [part]})
            if self.tells_usage:
                await self._event(send, {**self._head(), "choices": [], "usage": self._usage()})
        except Refusal as refusal:
            await self._event(send, refusal.body)
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})

    async def _event(self, send: Send, document: Document) -> None:
        data = b"data: " + json.dumps(document).encode() + b"\n\n"
        await send({"type": "http.response.body", "body": data, "more_body": True})

    def _head(self) -> Document:
        kind = ("chat.completion.chunk" if self.streams else "chat.completion") if self.is_chat else "text_completion"
        prefix = "chatcmpl" if self.is_chat else "cmpl"
        return {"id": f"{prefix}-{self.id}", "object": kind, "created": self.created, "model": self.worker.name}

    def _usage(self) -> Document:
        made = sum(job.answer.continuation.n_new for job in self._jobs if job.answer)
        n_prompt = self.ask.n_prompt
        return {"prompt_tokens": n_prompt, "completion_tokens": made, "total_tokens": n_prompt + made}

    def _choice(self, index: int, piece: Piece, is_first: bool) -> Document:
        text, choices = piece.text, piece.choices
        job = self._jobs[index]
        if is_first and self.ask.echoes and job.answer is not None:
            text = self.worker.lm.tokenizer.decode(job.request.ids) + text
            choices = [*job.answer.continuation.prompt_choices, *choices]
        found = self._logprobs(index, choices) if job.request.n_top is not None else None
        common: Document = {"index": index, "logprobs": found, "finish_reason": piece.reason}
        if not self.is_chat:
            return {**common, "text": text}
        message: Document = {"content": text, **({"role": "assistant"} if is_first else {})}
        return {**common, "delta" if self.streams else "message": message}

    def _logprobs(self, index: int, choices: list[Choice]) -> Document:
        decode = self.worker.lm.tokenizer.decode_bytes
        told = [(c, name(decode([c.id])), list(decode([c.id]))) for c in choices]
        if self.is_chat:
            content = [
                {
                    "token": token,
                    "logprob": c.log_probability,
                    "bytes": raw,
                    "top_logprobs": [
                        {"token": name(decode([i])), "logprob": value, "bytes": list(decode([i]))} for i, value in c.top
                    ],
                }
                for c, token, raw in told
            ]
            return {"content": content, "refusal": None}
        offsets = []
        for _, token, _ in told:
            offsets.append(self._offsets[index])
            self._offsets[index] += len(token)
        tops = [{name(decode([i])): v for i, v in reversed(c.top)} or None for c, _, _ in told]
        return {
            "tokens": [token for _, token, _ in told],
            "token_logprobs": [c.log_probability for c, _, _ in told],
            "top_logprobs": tops,
            "text_offset": offsets,
        }


def name(data: bytes) -> str:
    """A token as text; bytes that are no text by their numbers."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def failed(job: Job, reason: str) -> Refusal:
    """What to tell of an answer that did not end by itself."""
    if reason == "cancelled":
        return Refusal(503, "the server is shutting down", code="shutting_down", retry_after=5)
    status = 504 if "took longer" in job.problem else 500
    return Refusal(status, job.problem, code="deadline" if status == 504 else "failed")


async def left(receive: Receive) -> None:
    """Returns once the reader is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
