import asyncio
import json
import random
import time

import httpx
import pytest
import torch
from openai import BadRequestError, OpenAI
from serving import Running

from cerebras_gpt.generate.lm import LM
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.model.parametrization import Parametrization
from cerebras_gpt.serve.guard import HEADERS, PUBLIC
from cerebras_gpt.serve.models import named
from cerebras_gpt.serve.server import Address
from cerebras_gpt.text.tokenizer import train_tokenizer

TEXT = "The cat sat on the mat. Für die Katze 🐈 ist die Matte schön, 猫はマットの上。\n"


@pytest.fixture(scope="module")
def lm() -> LM:
    tokenizer = train_tokenizer([TEXT * 20], vocab_size=280)
    architecture = Architecture(d_model=32, n_layers=2, n_heads=2, vocab_size=280, seq_len=128)
    parametrization = Parametrization(architecture.n_layers, architecture.d_head, base_init_std=0.3)
    return LM(initialize(GPT(architecture, parametrization), torch.Generator().manual_seed(0)).eval(), tokenizer)


@pytest.fixture(scope="module")
def running(lm):
    made = Running({"tiny": lm})
    yield made
    made.wait_until_idle()
    made.end()


@pytest.fixture(scope="module")
def http(running):
    with httpx.Client(base_url=running.url, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def openai(running):
    return OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)


def complete(http, **body):
    return http.post("/v1/completions", json={"model": "tiny", "prompt": "The cat", "temperature": 0, **body})


def test_a_completion_says_what_the_model_says_alone(http, lm):
    from cerebras_gpt.generate.sampling import Sampling

    body = complete(http, max_tokens=30).json()
    assert body["choices"][0]["text"] == lm.generate("The cat", 30, Sampling(temperature=0))
    assert body["usage"]["prompt_tokens"] == len(lm.tokenizer.encode("The cat"))


def test_the_official_client_works_unmodified(openai):
    assert [model.id for model in openai.models.list()] == ["tiny"]
    assert openai.models.retrieve("tiny").id == "tiny"
    made = openai.completions.create(model="tiny", prompt=["a", "b"], n=2, max_tokens=4, logprobs=2, seed=3)
    assert [choice.index for choice in made.choices] == [0, 1, 2, 3]
    assert len(made.choices[0].logprobs.tokens) == 4
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    whole = openai.chat.completions.create(
        model="tiny", messages=messages, max_tokens=9, logprobs=True, top_logprobs=2, seed=1
    )
    options = {"stream": True, "stream_options": {"include_usage": True}}
    parts = list(openai.chat.completions.create(model="tiny", messages=messages, max_tokens=9, seed=1, **options))
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert text == whole.choices[0].message.content
    assert parts[-1].usage == whole.usage
    assert len(whole.choices[0].logprobs.content[0].top_logprobs) == 2
    vectors = openai.embeddings.create(model="tiny", input=["a cat", "a dog"])
    assert len(vectors.data[1].embedding) == 32
    with pytest.raises(BadRequestError) as told:
        openai.completions.create(model="tiny", prompt="a", max_tokens=-1)
    assert told.value.param == "max_tokens"


def test_echo_scores_the_prompt_as_the_model_does(http, lm):
    ids = lm.tokenizer.encode("The cat sat")
    body = complete(http, prompt=ids, echo=True, max_tokens=1, logprobs=1).json()
    found = body["choices"][0]["logprobs"]["token_logprobs"]
    assert found[0] is None
    with torch.inference_mode():
        expected = lm.model(torch.tensor([ids]))[0].log_softmax(-1)
    for n in range(len(ids) - 1):
        assert found[n + 1] == pytest.approx(float(expected[n, ids[n + 1]]), abs=1e-4)


def streamed(http, **body) -> tuple[str, list[str], dict]:
    """Joined text, reasons to end, usage."""
    text, reasons, usage = "", [], {}
    with http.stream(
        "POST",
        "/v1/completions",
        json={"model": "tiny", "stream": True, "stream_options": {"include_usage": True}, **body},
    ) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                part = json.loads(line[6:])
                usage = part.get("usage") or usage
                for choice in part["choices"]:
                    text += choice["text"]
                    reasons += [choice["finish_reason"]] if choice["finish_reason"] else []
    return text, reasons, usage


def test_a_stream_is_the_whole_answer_in_pieces(http):
    choose = random.Random(1)
    for seed in range(60):
        body = {
            "prompt": "".join(choose.choices(TEXT, k=choose.randint(0, 20))),
            "seed": seed,
            "max_tokens": choose.randint(1, 30),
            "stop": choose.choice([None, "a", ["e", "\ufffd\ufffd"], "schön"]),
        }
        whole = complete(http, **{"temperature": 1, **body}).json()
        choice = whole["choices"][0]
        assert streamed(http, **body) == (choice["text"], [choice["finish_reason"]], whole["usage"])


WRONG = ["", "x", -1, 1.5, True, None, [], {}, [None], {"a": 1}, 10**30, -(10**9), 1e308, "\x00", ["\x00", 3], [[[]]]]
NAMES = {
    "/v1/completions": "prompt max_tokens logprobs echo best_of suffix",
    "/v1/chat/completions": "messages max_tokens max_completion_tokens logprobs top_logprobs",
    "/v1/embeddings": "input encoding_format",
}
COMMON = (
    "model n temperature top_p top_k repetition_penalty presence_penalty frequency_penalty logit_bias seed stop stream "
    "stream_options user truncate_prompt unknown_name"
)
GOOD = {
    "/v1/completions": {"model": "tiny", "prompt": "a", "max_tokens": 1},
    "/v1/chat/completions": {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1},
    "/v1/embeddings": {"model": "tiny", "input": "a"},
}
TABLE = [
    (route, name)
    for route, names in NAMES.items()
    for name in (*names.split(), *(COMMON if route != "/v1/embeddings" else "model user unknown_name").split())
]


@pytest.mark.parametrize(("route", "name"), TABLE)
def test_a_bad_parameter_is_refused_by_its_name(http, route, name):
    for value in WRONG:
        answer = http.post(route, json={**GOOD[route], name: value})
        assert answer.status_code in (200, 400, 404), (value, answer.text)
        if answer.status_code != 200:
            error = answer.json()["error"]
            assert error["param"] == name, (value, error)
            assert error["message"].startswith(name)
            assert error["type"] == "invalid_request_error"


def mutated(choose: random.Random) -> bytes:
    """A request that was good until something happened to it."""
    route, body = "/v1/completions", dict(GOOD["/v1/completions"])
    for _ in range(choose.randint(0, 3)):
        name = choose.choice([*NAMES[route].split(), *COMMON.split()])
        body[name] = choose.choice([*WRONG, "😀", "\ud800", 0, 1, 0.5, [5], "a" * 300])
    data = bytearray(json.dumps(body).encode())
    for _ in range(choose.choice([0, 0, 1, 4])):
        at = choose.randrange(len(data))
        data[at : at + choose.randint(0, 3)] = choose.randbytes(choose.randint(0, 3))
    return bytes(data)


def test_no_request_makes_the_server_fail(running):
    choose, seen = random.Random(7), set()
    canary = None

    async def ask(client: httpx.AsyncClient, data: bytes) -> None:
        answer = await client.post("/v1/completions", content=data, headers={"content-type": "application/json"})
        seen.add(answer.status_code)
        assert answer.status_code in (200, 400, 404, 429), (data, answer.text)
        if answer.status_code != 200:
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

    async def campaign() -> None:
        nonlocal canary
        async with httpx.AsyncClient(base_url=running.url, timeout=20) as client:
            for _ in range(60):
                await asyncio.gather(*(ask(client, mutated(choose)) for _ in range(16)))
                told = (await client.post("/v1/completions", json={**GOOD["/v1/completions"], "max_tokens": 8})).json()
                text = told["choices"][0]["text"] if "choices" in told else canary
                canary = canary or text
                assert text == canary

    asyncio.run(campaign())
    assert {200, 400, 404} <= seen
    running.wait_until_idle()
    assert running.worker.counts["restarts"] == 0


def test_a_reader_who_leaves_frees_the_slot_at_once(running):
    async def leave(client: httpx.AsyncClient, seconds: float) -> None:
        body = {"model": "tiny", "prompt": "The", "max_tokens": 120, "stream": True, "logit_bias": {"279": -100}}
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            async for _ in answer.aiter_raw():
                if seconds == 0:
                    return
                await asyncio.sleep(seconds)
                return

    async def campaign() -> None:
        async with httpx.AsyncClient(base_url=running.url, timeout=20) as client:
            for n in range(20):
                await leave(client, (0, 0.005)[n % 2])

    before = running.worker.counts["cancelled"]
    asyncio.run(campaign())
    running.wait_until_idle()
    assert running.worker.counts["cancelled"] > before
    counts = running.worker.counts
    assert counts["accepted"] == counts["completed"] + counts["cancelled"] + counts["failed"]


def test_more_than_the_queue_holds_is_refused_with_a_time_to_come_back(running):
    async def campaign() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=running.url, timeout=20) as client:
            body = {"model": "tiny", "prompt": "a", "max_tokens": 60, "n": 4, "logit_bias": {"279": -100}}
            return await asyncio.gather(*(client.post("/v1/completions", json=body) for _ in range(40)))

    answers = asyncio.run(campaign())
    assert {answer.status_code for answer in answers} == {200, 429}
    refusals = [answer for answer in answers if answer.status_code == 429]
    assert all(answer.headers["retry-after"] == "1" for answer in refusals)
    running.wait_until_idle()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": "localhost.evil.example:80"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"host": "localhost:1"}, 200),
        ({"content-type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_only_known_hosts_and_json_come_in(http, headers, status):
    content = json.dumps(GOOD["/v1/completions"])
    answer = http.post("/v1/completions", content=content, headers={"content-type": "application/json", **headers})
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers
    assert all(answer.headers[name.decode()] == value.decode() for name, value in HEADERS)


def test_bodies_have_a_size_and_a_time(running, http):
    assert complete(http, prompt="a" * 60_000).status_code == 413
    with __import__("socket").create_connection(("127.0.0.1", running.port), 5) as socket:
        start = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        socket.sendall(start + b"content-length: 99\r\n\r\n{")
        assert b" 408 " in socket.recv(1000)
    with __import__("socket").create_connection(("127.0.0.1", running.port), 5) as socket:
        socket.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 70_000)
        assert b" 431 " in socket.recv(1000)


def test_a_long_prompt_is_refused_or_cut_as_asked(http):
    long = complete(http, prompt=[5] * 129)
    assert (long.status_code, long.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert complete(http, prompt=[5] * 129, truncate_prompt=True, max_tokens=1).status_code == 200


def test_facts_are_told(http, running):
    assert http.get("/health").json()["status"] == "ok"
    assert 'cerebras_gpt_accepted_total{model="tiny"}' in http.get("/metrics").text
    assert "/v1/completions" in http.get("/openapi.json").json()["paths"]
    page = http.get("/")
    assert page.status_code == 200
    assert "<script>" not in page.text and "http://" not in page.text and "https://" not in page.text
    assert http.get("/page/..%2f..%2fapp.py").status_code == 404


def test_an_engine_that_fails_is_told_of_and_heals(http, running, monkeypatch):
    def fail() -> None:
        raise SystemError("planted")

    before = running.worker.counts["restarts"]
    running.worker.run(fail)
    assert complete(http, max_tokens=3).status_code in (200, 500)
    assert complete(http, max_tokens=3).status_code == 200
    assert running.worker.counts["restarts"] == before + 1


def test_an_engine_that_hangs_makes_health_red(http, running):
    running.worker.run(lambda: time.sleep(2.6))
    time.sleep(1.95)
    assert http.get("/health").status_code == 503
    time.sleep(0.95)
    assert http.get("/health").status_code == 200


def test_without_the_key_only_the_page_and_health_are_open(lm):
    made = Running({"tiny": lm}, key="secret-1")
    paths = ["/", "/health", "/metrics", "/openapi.json", "/runs", "/v1/models", "/v1/models/tiny", "/docs", "/nothing"]
    with httpx.Client(base_url=made.url) as client:
        for path in (*paths, *PUBLIC, *NAMES):
            for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret-1"}):
                status = client.request("POST" if path in NAMES else "GET", path, headers=given).status_code
                assert (status == 401) == (path not in PUBLIC), (path, given, status)
            assert client.get(f"{path}?key=secret-1&api_key=secret-1").status_code in (200, 401, 405)
        doubled = [("Authorization", "Bearer secret-1"), ("Authorization", "Bearer wrong")]
        assert client.get("/v1/models", headers=doubled).status_code == 401
        assert client.get("/v1/models", headers={"Authorization": "Bearer secret-1"}).status_code == 200
    made.end()


def test_another_address_needs_a_key_and_names_are_told_apart(tmp_path):
    with pytest.raises(ValueError, match="can be reached by others"):
        Address("0.0.0.0")
    assert Address("0.0.0.0", key="k").key == "k"
    with pytest.raises(ValueError, match="same folder name"):
        named([tmp_path / "a" / "run", tmp_path / "b" / "run"])
