"""What the server does when it is asked too much, too slowly or too often, or when something inside it breaks."""

import asyncio
import gc
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import torch
from serving import Running

from cerebras_gpt.generate.lm import LM
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.model.parametrization import Parametrization
from cerebras_gpt.serve.connection import YOUNG_SECONDS
from cerebras_gpt.serve.limits import Limits
from cerebras_gpt.text.tokenizer import train_tokenizer

LIMITS = Limits(queue=4, body_bytes=50_000, read_seconds=1.0, deadline_seconds=20.0, connections=12)
GET = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def running():
    tokenizer = train_tokenizer(["The cat sat on the mat.\n" * 20], vocab_size=270)
    architecture = Architecture(d_model=32, n_layers=2, n_heads=2, vocab_size=270, seq_len=128)
    model = GPT(architecture, Parametrization(2, architecture.d_head, base_init_std=0.3))
    lm = LM(initialize(model, torch.Generator().manual_seed(0)).eval(), tokenizer)
    made = Running({"tiny": lm}, limits=LIMITS, slots=2)
    yield made
    made.wait_until_idle()
    made.end()


@pytest.fixture
def http(running):
    with httpx.Client(base_url=running.url, timeout=20) as client:
        yield client


def connected(running):
    return socket.create_connection(("127.0.0.1", running.port), 5)


def all_of(plain):
    """What comes until the other side closes."""
    parts = []
    while part := plain.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_a_full_server_refuses_before_it_reads(running, http):
    held, before = running.worker.run, running.service.n_turned_away
    held(lambda: time.sleep(0.5))
    bodies = {"model": "tiny", "prompt": "a", "max_tokens": 60, "n": 6, "logit_bias": {"269": -100}}

    async def campaign():
        async with httpx.AsyncClient(base_url=running.url, timeout=20) as client:
            whole = asyncio.create_task(client.post("/v1/completions", json=bodies))
            while running.worker.n_open < 6:
                await asyncio.sleep(0.01)
            nonsense = {"content": b"{no json", "headers": {"content-type": "application/json"}}
            refused = await client.post("/v1/completions", **nonsense)
            return await whole, refused

    whole, refused = asyncio.run(campaign())
    assert (whole.status_code, refused.status_code) == (200, 429)
    assert refused.headers["retry-after"] == "1" and refused.json()["error"]["code"] == "queue_full"
    assert running.service.n_turned_away == before + 1
    assert f'cerebras_gpt_refused_total{{model=""}} {before + 1:.1f}' in http.get("/metrics").text


def test_what_was_loaded_is_not_collected_again_and_again(running):
    assert gc.get_freeze_count() > 50_000


@pytest.mark.parametrize("before", [b"", GET])
def test_headers_have_a_time_on_every_request_of_a_connection(running, before):
    with connected(running) as plain:
        if before:
            plain.sendall(before)
            assert b" 200 " in plain.recv(65536)
        plain.sendall(b"GET /health HTTP/1.1\r\nhost: local")
        assert b" 408 " in all_of(plain)


def test_a_connection_that_says_nothing_is_closed_without_a_word(running):
    with connected(running) as plain:
        assert all_of(plain) == b""


def test_idle_connections_make_room_for_others(running):
    idle = [connected(running) for _ in range(LIMITS.connections)]
    time.sleep(1.5 * YOUNG_SECONDS)
    idle += [connected(running) for _ in range(5)]
    with connected(running) as plain:
        plain.sendall(GET)
        assert b" 200 " in plain.recv(65536)
    for one in idle:
        one.close()


def test_a_crowd_that_has_just_come_is_heard_and_not_sent_away(running):
    held = threading.Event()
    running.server.servers[0].get_loop().call_soon_threadsafe(held.wait, 0.5)  # all come while nobody listens
    some = [connected(running) for _ in range(LIMITS.connections + 3)]
    for one in some:
        one.sendall(GET)
    assert all(b" 200 " in one.recv(65536) for one in some[: LIMITS.connections])
    assert all(b" 503 " in told and b'"crowded"' in told for told in map(all_of, some[LIMITS.connections :]))
    for one in some:
        one.close()


def test_readers_who_all_wait_for_a_body_leave_the_next_one_told(running):
    head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    slow = [connected(running) for _ in range(LIMITS.connections)]
    for one in slow:
        one.sendall(head + b"content-length: 99\r\n\r\n{")
    time.sleep(0.1)
    with connected(running) as plain:
        plain.sendall(GET)
        told = all_of(plain)
        assert b" 503 " in told and b"retry-after: 1" in told and b'"crowded"' in told
    for one in slow:
        assert b" 408 " in one.recv(65536)
        one.close()


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"])
def test_what_is_no_http_is_refused_in_the_form_of_the_protocol(running, data):
    with connected(running) as plain:
        plain.sendall(data)
        head, _, content = all_of(plain).partition(b"\r\n\r\n")
        assert b" 4" in head[:13] and json.loads(content)["error"]["type"] == "invalid_request_error"


POST = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
TOO_MUCH = {
    b" 413 ": POST + b"content-length: 60000000\r\n\r\n" + b" " * 1000,
    b" 431 ": b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 20_000,
}


@pytest.mark.parametrize("status", TOO_MUCH)
def test_who_sends_too_much_waits_and_is_not_read_on(running, http, status):
    began = time.monotonic()
    with connected(running) as plain:
        plain.sendall(TOO_MUCH[status])
        assert http.get("/health").status_code == 200 and time.monotonic() - began < LIMITS.oversize_seconds
        told = all_of(plain)
    assert status in told and b"connection: close" in told
    assert LIMITS.oversize_seconds <= time.monotonic() - began < LIMITS.read_seconds


def test_many_texts_to_embed_do_not_hold_up_an_answer(running, http):
    embed, turns = running.worker.lm.embed, []

    def slowly(ids):
        time.sleep(0.03)
        turns.append("text")
        return embed(ids)

    running.worker.lm.embed = slowly

    async def campaign():
        async with httpx.AsyncClient(base_url=running.url, timeout=20) as client:
            many = client.post("/v1/embeddings", json={"model": "tiny", "input": ["a"] * 100})
            task = asyncio.create_task(many)
            await asyncio.sleep(0.2)
            body = {"model": "tiny", "prompt": "a", "max_tokens": 5, "logit_bias": {"269": -100}}
            answer = await client.post("/v1/completions", json=body)
            turns.append("answer")
            return answer, await task

    answer, many = asyncio.run(campaign())
    running.worker.lm.embed = embed
    assert answer.status_code == 200, answer.text
    assert len(many.json()["data"]) == 100
    assert turns.index("answer") < 60


def test_a_long_text_to_embed_is_no_standstill(running, http, monkeypatch):
    for block in running.worker.lm.model.blocks:
        plain = block.forward
        monkeypatch.setattr(block, "forward", lambda *given, plain=plain: time.sleep(1.2) or plain(*given))
    with ThreadPoolExecutor(1) as beside:
        body = {"model": "tiny", "input": "a"}
        made = beside.submit(httpx.post, f"{running.url}/v1/embeddings", json=body, timeout=9)
        seen = []
        while not made.done():
            seen.append(http.get("/health").status_code)
            time.sleep(0.1)
    assert made.result().status_code == 200 and len(seen) > 15 and set(seen) == {200}
    assert not any(block._forward_hooks for block in running.worker.lm.model.blocks)


def test_a_text_that_cannot_be_embedded_fails_alone(running, http, monkeypatch):
    def fail(ids):
        raise MemoryError("planted")

    before = running.worker.counts["restarts"]
    with monkeypatch.context() as patch:
        patch.setattr(running.worker.lm, "embed", fail)
        answer = http.post("/v1/embeddings", json={"model": "tiny", "input": "a"})
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "failed"
    assert http.post("/v1/embeddings", json={"model": "tiny", "input": "a"}).status_code == 200
    assert running.worker.counts["restarts"] == before


def test_a_panic_of_native_code_ends_one_request(running, http, monkeypatch):
    class Panic(BaseException):
        pass

    def panic(text):
        raise Panic

    with monkeypatch.context() as patch:
        patch.setattr(type(running.worker.lm.tokenizer), "encode", lambda self, text: panic(text))
        answer = http.post("/v1/completions", json={"model": "tiny", "prompt": "a"})
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "failed"
    assert http.get("/health").status_code == 200


def test_an_engine_that_cannot_be_made_at_first_heals(running, http, monkeypatch):
    make, tries = running.worker.lm.engine, []

    def scarce(n_slots):
        tries.append(n_slots)
        if len(tries) < 3:
            raise MemoryError("planted")
        return make(n_slots)

    def fail():
        raise SystemError("planted")

    monkeypatch.setattr(running.worker.lm, "engine", scarce)
    running.worker.run(fail)
    answer = http.post("/v1/completions", json={"model": "tiny", "prompt": "a", "max_tokens": 2})
    assert answer.status_code in (200, 500) and http.get("/health").status_code == 200
    assert len(tries) == 3


def test_a_bug_of_ours_is_told_in_the_form_of_the_protocol(running, http, monkeypatch):
    def fail(*_):
        raise OSError("planted")

    with monkeypatch.context() as patch:
        patch.setattr("cerebras_gpt.serve.protocol.completion", fail)
        answer = http.post("/v1/completions", json={"model": "tiny", "prompt": "a"})
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "failed"
    assert "planted" not in answer.text
