"""S1: mutated JSON, wrong doors and bytes that are hardly HTTP: no undocumented 5xx, no hang, the canary sings on."""

import json
import socket

from benchmarks.serving_faults.asking import CANARY, ROUTE, Client, completion, connected, drawn, read_all, texts
from benchmarks.serving_faults.target import LIMITS, Target

CANARY_EVERY = 1000
ROUTES = (ROUTE, "/v1/chat/completions", "/v1/embeddings", "/v1/models", "/health", "/metrics", "/")
STRANGE = [
    *(
        None,
        True,
        "",
        "\x00",
        "a" * 5000,
        -1,
        0,
        1,
        2**63,
        -(2**70),
        1e308,
        5e-324,
        0.5,
        [],
        [[]],
        {},
        {"a": {"b": []}},
    ),
    *([1, "a"], ["\ud800"], [10**9], [-5], {"5": 101}, {"-1": 1}, {"x": "y"}, "é" * 999, "../../etc/passwd"),
]
PARAMETERS = (
    *("model", "prompt", "n", "temperature", "top_p", "top_k", "repetition_penalty", "presence_penalty", "seed"),
    *("frequency_penalty", "logit_bias", "stop", "stream", "stream_options", "user", "truncate_prompt", "max_tokens"),
    *("logprobs", "echo", "best_of", "suffix", "messages", "input", "top_logprobs", "nonsense"),
)
STATUSES = {200, 400, 403, 404, 405, 413, 415, 429}
HEADS = (
    b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n",
    b"GET /health HTTP/1.0\r\n",
    b"GET / HTTP/9.9\r\n",
    b"GET http://127.0.0.1/health HTTP/1.1\r\nHost: x\r\nHost: 127.0.0.1\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    b"GET /\x00 HTTP/1.1\r\n",
    b"",
)
RESTS = (
    b"Content-Length: 5\r\n\r\n{",
    b"Content-Length: -1\r\n\r\n",
    b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}}",
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n",
    b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"X: a\nY: b\r\n\r\n",
    b" folded\r\n\r\n",
    b"\r\n\r\n",
    b"A: " + b"a" * 20000,
)


def mutated(draw):
    """A path, a method and a body: strange values, broken JSON, wrong doors."""
    kind = draw.randrange(10)
    if kind < 7:
        body = completion(draw, messages=[{"role": "user", "content": "hi"}]) if kind < 2 else completion(draw)
        for _ in range(draw.randint(0, 3)):
            body[draw.choice(PARAMETERS)] = draw.choice(STRANGE)
        return draw.choice(ROUTES[:3]), "POST", json.dumps(body).encode()
    if kind < 9:
        whole = json.dumps(completion(draw)).encode()
        at = draw.randrange(len(whole))
        cut = [whole[:at], whole[:at] + bytes([draw.randrange(256)]) + whole[at + 1 :], b"[" * draw.randrange(3000)]
        return draw.choice(ROUTES[:3]), "POST", draw.choice(cut)
    path = draw.choice(ROUTES) + draw.choice(["", "/..", "?x=%00", "/%2e%2e/x", "/tiny", "%ff", "/a" * 200])
    return path, draw.choice(["GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"]), None


def asked(client, draw, statuses):
    """What is wrong with the answer to one mutated request."""
    path, method, body = mutated(draw)
    try:
        status, _, content, _ = client.ask(path, body, method)
    except TimeoutError:
        client.kept = None
        return [f"{method} {path} hung on {body!r:.200}"]
    statuses[status] = statuses.get(status, 0) + 1
    if status not in STATUSES:
        return [f"{status} for {method} {path} {body!r:.200}"]
    if status >= 400 and method != "HEAD" and set(json.loads(content)) != {"error"}:
        return [f"{status} for {method} {path} without an error: {content[:200]!r}"]
    return []


def spoken(port, draw, statuses):
    """What is wrong with the answer to bytes on a connection of their own, which must end in time."""
    data = draw.choice(HEADS) + draw.choice([*RESTS, draw.randbytes(200)])
    with connected(port, 3 * LIMITS.read_seconds + 5) as plain:
        try:
            plain.sendall(data)
            if draw.random() < 0.999:  # whoever only waits is let wait as long as the limits allow
                plain.shutdown(socket.SHUT_WR)
            told = read_all(plain)
        except TimeoutError:
            return [f"no end to {data!r:.200}"]
        except ConnectionError:
            return []
    status = int(told[9:12]) if told[:5] == b"HTTP/" else 0
    statuses[f"raw {status}"] = statuses.get(f"raw {status}", 0) + 1
    return [f"{status} for {data!r:.200}"] if status >= 500 else []


def campaign(report, folder, seed, numbers):
    """One case in ten is raw bytes; every thousand the canary is asked, in the end whether all ends add up."""
    statuses = {}
    with Target(folder) as target:
        client = Client(target.port).waited()
        first = texts(client.complete(CANARY))
        for number in numbers[: max(1, len(numbers) // 20)]:  # what stays is there before it is measured
            asked(client, drawn(seed, number), {})
        before = target.memory
        for number in numbers:
            draw = drawn(seed, number)
            problems = spoken(target.port, draw, statuses) if number % 10 == 9 else asked(client, draw, statuses)
            if number % CANARY_EVERY == 0 and texts(client.complete(CANARY)) != first:
                problems.append("the canary answers otherwise")
            report.case(number, problems)
        growth = (target.memory - before) / len(numbers)
        found = client.settled()
        report.case("conservation", client.conserved())
        report.case("restarts", [f"{found['restarts_total']:g}"] if found["restarts_total"] else [])
        report.case("end", target.end())
    report.figures["statuses"] = dict(sorted(statuses.items(), key=str))
    report.figures["bytes grown per request"] = round(growth, 1)
