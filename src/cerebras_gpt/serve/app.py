"""The routes of the server, over workers that are given."""

import asyncio
import base64
import json
import logging
import struct
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from cerebras_gpt.serve import protocol
from cerebras_gpt.serve.failure import BROKEN, Refusal, queue_full, refused
from cerebras_gpt.serve.guard import Guard
from cerebras_gpt.serve.limits import Limits
from cerebras_gpt.serve.reply import Reply
from cerebras_gpt.serve.runs import found_runs, run_told
from cerebras_gpt.serve.watch import Watch
from cerebras_gpt.serve.worker import Worker

log = logging.getLogger("cerebras_gpt")
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": words, "model": protocol.Failure}
    for status, words in (("4XX", "Refused; `param` names what was wrong."), ("5XX", "Failed, or no room."))
}
STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


class Service:
    """The workers by name, and whether new requests are still taken."""

    def __init__(self, workers: Sequence[Worker], limits: Limits, runs: Path | None = None) -> None:
        self.workers = {worker.name: worker for worker in workers}
        self.limits, self.runs, self.is_draining = limits, runs, False
        self.watch = Watch(workers, limits)
        self.n_embedding = 0
        self.n_turned_away = 0
        """Requests that were refused unread, whatever model they were for."""

    def check_room(self) -> None:
        """Refuses a request when no model could take it."""
        if self.workers and all(w.n_open >= w.n_slots + self.limits.queue for w in self.workers.values()):
            self.n_turned_away += 1
            raise queue_full()

    def worker(self, name: str) -> Worker:
        """The worker of a model that may be asked now."""
        if self.is_draining:
            raise Refusal(503, "the server is shutting down", code="shutting_down", retry_after=5)
        if name not in self.workers:
            raise Refusal(404, f"model: there is no {name[:80]!r}; see /v1/models", "model", "model_not_found")
        return self.workers[name]

    async def embedded(self, worker: Worker, ids: Sequence[Sequence[int]]) -> list[list[float]]:
        """The vectors of some texts, each in its turn, so that the worker's answers go on between them."""
        if self.n_embedding >= self.limits.queue:
            raise queue_full()
        self.n_embedding += 1
        try:
            async with asyncio.timeout(self.limits.deadline_seconds):
                return [await _embedded(worker, one) for one in ids]
        except TimeoutError:
            raise Refusal(
                504, f"it took longer than {self.limits.deadline_seconds:g} seconds", code="deadline"
            ) from None
        finally:
            self.n_embedding -= 1

    @property
    def n_open(self) -> int:
        """Answers under way or waiting, and requests whose texts are being embedded."""
        return self.n_embedding + sum(worker.n_open for worker in self.workers.values())

    @property
    def health(self) -> dict[str, object]:
        """Whether every engine moves."""
        engines = {name: "stalled" if self.watch.is_red(one) else "moves" for name, one in self.workers.items()}
        status = "draining" if self.is_draining else "stalled" if "stalled" in engines.values() else "ok"
        return {"status": status, "engines": engines}


def answer(status: int, body: object, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer in ASCII, so that no text can fail to be written."""
    return Response(json.dumps(body), status, headers, "application/json")


def make_app(service: Service, hosts: Collection[str], key: str | None) -> Guard:
    """The whole ASGI application."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        for worker in service.workers.values():
            worker.start()
        watch = asyncio.create_task(service.watch.keep())
        yield
        watch.cancel()
        for worker in service.workers.values():
            worker.stop()

    app = FastAPI(
        title="cerebras-gpt", docs_url=None, redoc_url=None, lifespan=life, redirect_slashes=False, responses=ERRORS
    )
    _add_errors(app)
    _add_answers(app, service)
    _add_facts(app, service)
    _add_pages(app, service)
    return Guard(app, hosts, key, service.limits, service.check_room)  # type: ignore[arg-type]


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def _refused(_: Request, error: Refusal) -> Response:
        return answer(error.status, error.body, error.headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        refusal = refused(error.errors())
        return answer(refusal.status, refusal.body)

    @app.exception_handler(Exception)
    async def _failed(_: Request, _error: Exception) -> Response:
        return answer(BROKEN.status, BROKEN.body)

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> Response:
        refusal = Refusal(error.status_code, str(error.detail))
        return answer(refusal.status, refusal.body, dict(error.headers or {}))


def _add_answers(app: FastAPI, service: Service) -> None:
    def reply(body: protocol.Body, worker: Worker, ask: protocol.Ask, is_chat: bool) -> Reply:
        options = body.stream_options
        if options is not None and not body.stream:
            raise Refusal(400, "stream_options: needs stream to be true", "stream_options")
        return Reply(worker, ask, is_chat, bool(body.stream), bool(options and options.include_usage)).submit()

    @app.post("/v1/completions", response_model=None, responses=STREAMED)
    async def completions(body: protocol.CompletionBody) -> Reply:
        """Continues a text."""
        worker = service.worker(body.model)
        return reply(body, worker, protocol.completion(body, worker.lm), False)

    @app.post("/v1/chat/completions", response_model=None, responses=STREAMED)
    async def chat(body: protocol.ChatBody) -> Reply:
        """Answers the last message of a conversation."""
        worker = service.worker(body.model)
        return reply(body, worker, protocol.chat(body, worker.lm, worker.lm.chat_template), True)

    @app.post("/v1/embeddings", response_model=None)
    async def embeddings(body: protocol.EmbeddingBody) -> Response:
        """The mean of the final states over each text's tokens."""
        worker = service.worker(body.model)
        ids = protocol.texts(body, worker.lm)
        vectors = await service.embedded(worker, ids)
        is_packed = body.encoding_format == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": packed(vector) if is_packed else vector}
            for index, vector in enumerate(vectors)
        ]
        n = sum(map(len, ids))
        usage = {"prompt_tokens": n, "total_tokens": n}
        return answer(200, {"object": "list", "data": data, "model": worker.name, "usage": usage})


async def _embedded(worker: Worker, ids: Sequence[int]) -> list[float]:
    """The vector of one text, computed between two steps of the worker's answers."""
    loop = asyncio.get_running_loop()
    made: asyncio.Future[list[float]] = loop.create_future()

    def settle(vector: list[float] | None) -> None:
        if made.cancelled():
            return
        if vector is None:
            made.set_exception(Refusal(500, "the text could not be embedded", "input", "failed"))
        else:
            made.set_result(vector)

    def embed() -> None:
        vector = None
        # One pass over a long text may take longer than an engine may stand still; one layer of it does not.
        hooks = [block.register_forward_hook(worker.move) for block in worker.lm.model.blocks]
        try:
            vector = worker.lm.embed(ids)
        except BaseException as error:  # nothing of the engine was touched: whoever else is served need not know
            log.error("a text could not be embedded: %s", type(error).__name__, exc_info=True)
        for hook in hooks:
            hook.remove()
        loop.call_soon_threadsafe(settle, vector)

    worker.run(embed)
    return await made


def packed(vector: Sequence[float]) -> str:
    """Numbers as the official clients ask for them: little-endian float32 in base64."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _add_facts(app: FastAPI, service: Service) -> None:
    def model(worker: Worker) -> dict[str, object]:
        seq_len = worker.lm.model.architecture.seq_len
        return {"id": worker.name, "object": "model", "created": 0, "owned_by": "cerebras-gpt", "context": seq_len}

    @app.get("/v1/models", response_model=None)
    async def models() -> Response:
        """What is served."""
        return answer(200, {"object": "list", "data": [model(worker) for worker in service.workers.values()]})

    @app.get("/v1/models/{name}", response_model=None)
    async def one_model(name: str) -> Response:
        """One of them."""
        return answer(200, model(service.worker(name)))

    @app.get("/health", response_model=None)
    async def health() -> Response:
        """200 while every engine moves, 503 otherwise."""
        told = service.health
        return answer(200 if told["status"] == "ok" else 503, told)

    @app.get("/metrics", response_model=None, response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counts in the form of Prometheus."""
        registry = CollectorRegistry()
        registry.register(Counts(service))
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")


COUNTED = (
    *("accepted", "completed", "cancelled", "failed", "refused", "restarts"),
    *("tokens", "prompt_tokens", "reused_tokens"),
)


class Counts:
    """What Prometheus is told; a collector."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def collect(self) -> list[CounterMetricFamily | GaugeMetricFamily]:
        """One family each: counts since the start, and what is under way."""
        families: list[CounterMetricFamily | GaugeMetricFamily] = []
        for kind in COUNTED:
            family = CounterMetricFamily(f"cerebras_gpt_{kind}", f"Since the start: {kind}.", labels=["model"])
            for name, worker in self.service.workers.items():
                family.add_metric([name], worker.counts[kind])
            if kind == "refused":
                family.add_metric([""], self.service.n_turned_away)
            families.append(family)
        for kind, attribute in (("open", "n_open"), ("busy_slots", "n_busy"), ("stalled_seconds", "stalled_seconds")):
            gauge = GaugeMetricFamily(f"cerebras_gpt_{kind}", f"Now: {kind}.", labels=["model"])
            for name, worker in self.service.workers.items():
                gauge.add_metric([name], getattr(worker, attribute))
            families.append(gauge)
        return families


def _add_pages(app: FastAPI, service: Service) -> None:
    folder = resources.files("cerebras_gpt.serve") / "page"
    files = {file.name: file.read_bytes() for file in folder.iterdir() if Path(file.name).suffix in KINDS}

    def page(name: str) -> Response:
        return Response(files[name], media_type=KINDS[Path(name).suffix])

    @app.get("/", response_model=None, include_in_schema=False)
    async def index() -> Response:
        """The playground, or the runs if nothing is served."""
        return page("index.html")

    @app.get("/page/{name}", response_model=None, include_in_schema=False)
    async def file(name: str) -> Response:
        """A file of the page."""
        if name not in files:
            raise Refusal(404, "there is no such file")
        return page(name)

    @app.get("/runs", response_model=None)
    async def runs() -> Response:
        """Names of the training runs in the folder that was given."""
        return answer(200, {"runs": sorted(found_runs(service.runs))})

    @app.get("/runs/{name:path}", response_model=None)
    async def run(name: str) -> Response:
        """The curves, the predicted band and the samples of one run."""
        known = found_runs(service.runs)
        if name not in known:
            raise Refusal(404, "there is no such run; see /runs")
        return answer(200, run_told(known[name]))
