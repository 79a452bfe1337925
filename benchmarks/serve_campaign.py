"""What a server must survive: fuzzed requests, readers who leave, overload, bad parameters; what must always be equal.

    python benchmarks/serve_campaign.py --out benchmarks/results/DATE-serve-campaign.json [--only fuzz streams ...]

One real server process with a model of 30,000 parameters and random weights over bytes, so that characters break over
tokens; every campaign has a seed and counts its cases. Exit code 1 if one was not as it must be.
"""

import argparse
import contextlib
import http.client
import json
import platform
import random
import socket
import statistics
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

NAME, SLOTS, QUEUE = "tiny", 8, 16
PATIENCE_SECONDS = 15.0
"""Whoever gets no answer for so long has met a hang."""
WORDS = ["The cat", "Für die Katze", "猫はマット", "🐈 sat", "", "a b c d e f", "\n\n", "x" * 60]


def serve(port):
    """In a process of its own: the server, as the verb starts it."""
    import torch

    from cerebras_gpt.generate.lm import LM
    from cerebras_gpt.model.architecture import Architecture
    from cerebras_gpt.model.gpt import GPT, initialize
    from cerebras_gpt.model.parametrization import Parametrization
    from cerebras_gpt.process import keep_memory
    from cerebras_gpt.serve.app import Service, make_app
    from cerebras_gpt.serve.guard import LOCAL
    from cerebras_gpt.serve.limits import Limits
    from cerebras_gpt.serve.server import Address, Server, configured
    from cerebras_gpt.serve.worker import Worker
    from cerebras_gpt.text.tokenizer import train_tokenizer

    keep_memory()
    torch.set_num_threads(1)
    tokenizer = train_tokenizer(["The cat sat on the mat. Für die Katze 🐈, 猫はマットの上。\n" * 20], 280)
    architecture = Architecture(d_model=32, n_layers=2, n_heads=2, vocab_size=280, seq_len=128)
    parametrization = Parametrization(2, architecture.d_head, base_init_std=0.3)
    model = initialize(GPT(architecture, parametrization), torch.Generator().manual_seed(0)).eval()
    limits = Limits(queue=QUEUE, read_seconds=2.0, deadline_seconds=PATIENCE_SECONDS)
    service = Service([Worker(NAME, LM(model, tokenizer), SLOTS, limits)], limits)
    Server(configured(make_app(service, LOCAL, None), Address(port=port), limits), service).run()


class Client:
    """One connection that is kept, as a client keeps it."""

    def __init__(self, port):
        self.port, self.kept = port, None

    def ask(self, path, body=None, method=None):
        """Status, headers, content, seconds; raises TimeoutError where nothing comes."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if content is not None else {}
        started = time.perf_counter()
        for fresh in (False, True):  # a connection that the server has closed meanwhile is opened again, once
            if self.kept is None or fresh:
                self.kept = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
            try:
                self.kept.request(method or ("GET" if content is None else "POST"), path, content, headers)
                reply = self.kept.getresponse()
                return reply.status, dict(reply.getheaders()), reply.read(), time.perf_counter() - started
            except (http.client.HTTPException, ConnectionError, BrokenPipeError):
                if fresh:
                    raise
        raise AssertionError

    def counts(self):
        """What /metrics says, by name."""
        lines = self.ask("/metrics")[2].decode().splitlines()
        rows = (line.split() for line in lines if not line.startswith("#"))
        return {name.split("{")[0].removeprefix("cerebras_gpt_"): float(value) for name, value in rows}

    def settled(self):
        """Counts once nothing is under way."""
        for _ in range(2000):
            found = self.counts()
            if not found["open"]:
                return found
            time.sleep(0.01)
        return found


def completion(draw, **given):
    """A sound request."""
    body = {"model": NAME, "prompt": draw.choice(WORDS), "max_tokens": draw.randint(1, 12), "seed": draw.randrange(99)}
    return {**body, "temperature": draw.choice([0, 0.7, 1.3]), **given}


STRANGE = [
    *(None, True, "", "\x00", "a" * 5000, -1, 0, 1, 2**63, -(2**70), 1e308, 0.5, [], [[]], {}, {"a": {"b": []}}),
    *([1, "a"], ["\ud800"], [10**9], [-5], {"5": 101}, {"-1": 1}, {"x": "y"}, "é" * 999, "../../etc/passwd"),
]
PARAMETERS = (
    *("model", "prompt", "n", "temperature", "top_p", "top_k", "repetition_penalty", "presence_penalty", "seed"),
    *("frequency_penalty", "logit_bias", "stop", "stream", "stream_options", "user", "truncate_prompt", "max_tokens"),
    *("logprobs", "echo", "best_of", "suffix", "messages", "input", "top_logprobs", "nonsense"),
)
ROUTES = ("/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/v1/models", "/health", "/metrics", "/")


def fuzzed(draw):
    """A path, a method and a body of one of three kinds: strange values, broken JSON, wrong doors."""
    kind = draw.randrange(10)
    if kind < 7:
        body = completion(draw, messages=[{"role": "user", "content": "hi"}]) if kind < 2 else completion(draw)
        for _ in range(draw.randint(1, 3)):
            body[draw.choice(PARAMETERS)] = draw.choice(STRANGE)
        return draw.choice(ROUTES[:3]), "POST", json.dumps(body).encode()
    if kind < 9:
        whole = json.dumps(completion(draw)).encode()
        at = draw.randrange(len(whole))
        cut = [whole[:at], whole[:at] + bytes([draw.randrange(256)]) + whole[at + 1 :], b"[" * draw.randrange(3000)]
        return draw.choice(ROUTES[:3]), "POST", draw.choice(cut)
    path = draw.choice(ROUTES) + draw.choice(["", "/..", "?x=%00", "/%2e%2e/x", "/tiny"])
    return path, draw.choice(["GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"]), None


def raw(draw):
    """Bytes that are no HTTP, or hardly."""
    head = draw.choice([b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"GET / HTTP/9.9\r\n", b""])
    more = [
        b"Content-Length: 5\r\n\r\n{",
        b"Content-Length: -1\r\n\r\n",
        b"\r\n\r\n",
        draw.randbytes(200),
        b"A" * 20000,
    ]
    return head + draw.choice(more)


def send_raw(port, draw):
    """Such bytes on a connection of their own, whose end is waited for every other time."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as plain:
        plain.sendall(raw(draw))
        if draw.random() < 0.5:
            plain.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while plain.recv(4096):
                    pass


def all_ended(client):
    """What is wrong with the sum of ends, once nothing is under way."""
    found = client.settled()
    ended = sum(found[f"{kind}_total"] for kind in ("completed", "cancelled", "failed"))
    return [] if found["accepted_total"] == ended else [f"accepted {found['accepted_total']}, ended {ended}"]


def fuzz(port, draw, n):
    """S1: no undocumented 5xx, no hang, errors in the protocol's form, the same answer to the canary throughout."""
    client, bad, statuses = Client(port), [], {}
    canary = completion(random.Random(0), temperature=0, max_tokens=12)
    first, before = client.ask("/v1/completions", canary)[2], memory(port)
    for number in range(n):
        if draw.random() < 0.05:
            send_raw(port, draw)
            continue
        path, method, body = fuzzed(draw)
        try:
            status, _, content, _ = client.ask(path, body, method)
        except TimeoutError:
            bad.append(f"{number}: {method} {path} hung on {body!r:.200}")
            continue
        statuses[status] = statuses.get(status, 0) + 1
        if status >= 500:
            bad.append(f"{number}: {status} for {method} {path} {body!r:.200}")
        if status >= 400 and path.startswith("/v1") and method == "POST" and "error" not in json.loads(content):
            bad.append(f"{number}: {status} without an error body")
        if number % 1000 == 999 and text_of(client.ask("/v1/completions", canary)[2]) != text_of(first):
            bad.append(f"{number}: the canary answers otherwise")
    bad += all_ended(client)
    growth = (memory(port) - before) / n
    return bad, {"requests": n, "statuses": dict(sorted(statuses.items())), "bytes_grown_per_request": round(growth, 1)}


def memory(port):
    """Anonymous resident bytes of the server."""
    status = Path(f"/proc/{SERVER[port].pid}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")))


def text_of(content):
    return [choice["text"] for choice in json.loads(content)["choices"]]


def streamed(client, body):
    """The parts of a stream."""
    content = client.ask("/v1/completions", {**body, "stream": True, "stream_options": {"include_usage": True}})[2]
    lines = [line[6:] for line in content.decode().split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def streams(port, draw, n):
    """S7: a stream is the whole answer in pieces, with the same reason to end and the same usage."""
    client, bad = Client(port), []
    for number in range(n):
        stop = draw.choice([None, "e", ["a ", "猫"], "\n"])
        body = completion(draw, max_tokens=draw.randint(1, 30), seed=draw.randrange(2**40), stop=stop)
        whole, parts = json.loads(client.ask("/v1/completions", body)[2]), streamed(client, body)
        choices = [part["choices"][0] for part in parts if part["choices"]]
        reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
        if "".join(choice["text"] for choice in choices) != whole["choices"][0]["text"]:
            bad.append(f"{number}: other text for {body}")
        if reasons != [whole["choices"][0]["finish_reason"]] or parts[-1]["usage"] != whole["usage"]:
            bad.append(f"{number}: {reasons} or usage differ for {body}")
    return bad, {"pairs": n}


def invariance(port, draw, n):
    """S8: tokens and log-probabilities of a request alone and among up to 16 others."""
    clients, bad = [Client(port) for _ in range(16)], []
    with ThreadPoolExecutor(16) as pool:
        done = 0
        while done < n:
            size = draw.randint(2, 16)
            bodies = [
                completion(draw, max_tokens=draw.randint(1, 16), seed=draw.randrange(2**40), logprobs=2)
                for _ in range(size)
            ]
            alone = [json.loads(clients[0].ask("/v1/completions", body)[2])["choices"] for body in bodies]
            among = list(pool.map(lambda pair: pair[0].ask("/v1/completions", pair[1])[2], zip(clients, bodies)))  # noqa: B905
            bad += [
                f"{body} differs among {size}"
                for body, one, other in zip(bodies, alone, among, strict=True)
                if json.loads(other)["choices"] != one
            ]
            done += size
    return bad, {"requests": done}


def disconnects(port, draw, n):
    """S3: a reader who resets the connection frees the slot at once."""
    client, bad, waits = Client(port), [], []
    for number in range(n):
        body = json.dumps(completion(draw, prompt="a", max_tokens=120, stream=True, temperature=1.0)).encode()
        lines = ["POST /v1/completions HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
        plain = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
        plain.sendall(head.encode() + body)
        if draw.random() < 0.8:
            plain.recv(draw.randint(1, 2000))
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        plain.close()
        left = time.perf_counter()
        while (found := client.counts())["open"] or found["busy_slots"]:
            if time.perf_counter() - left > PATIENCE_SECONDS:
                bad.append(f"{number}: still open")
                break
        waits.append(time.perf_counter() - left)
    waits.sort()
    p99 = waits[int(0.99 * len(waits))]
    if p99 > 0.25:
        bad.append(f"p99 of a slot's freeing is {p99:.3f} s, more than 0.25")
    return bad, {"disconnects": n, "p50_seconds": statistics.median(waits), "p99_seconds": p99}


def overload(port, draw, n):
    """S4: n seconds of ten times as many clients as fit; all that is not answered is refused with a time to return."""
    bad, ends = [], time.monotonic() + n
    told, healths = {200: [], 429: []}, []

    def clamour(seed):
        client, mine = Client(port), random.Random(seed)
        while time.monotonic() < ends:
            status, headers, content, seconds = client.ask("/v1/completions", completion(mine, max_tokens=60))
            if status not in told or (status == 429 and "retry-after" not in {key.lower() for key in headers}):
                bad.append(f"{status}: {content[:200]!r}")
            else:
                told[status].append(seconds)
            if status == 429:
                time.sleep(0.05)

    def watch():
        client = Client(port)
        while time.monotonic() < ends:
            status, _, _, seconds = client.ask("/health")
            healths.append(seconds)
            if status != 200:
                bad.append(f"/health says {status}")
            time.sleep(0.1)

    with ThreadPoolExecutor(10 * SLOTS + 1) as pool:
        jobs = [pool.submit(clamour, draw.random()) for _ in range(10 * SLOTS)] + [pool.submit(watch)]
        for job in jobs:
            job.result()
    Client(port).settled()
    found = {"seconds": n, "clients": 10 * SLOTS, "answered": len(told[200]), "refused": len(told[429])}
    for name, values in (("answer", told[200]), ("refusal", told[429]), ("health", healths)):
        values.sort()
        found[f"{name}_p99_seconds"] = values[int(0.99 * len(values))] if values else None
    return bad, found


WRONG = {
    "n": [0, -1, 17, 1.5, "1", True, [1], 2**70],
    "temperature": [-0.1, 2.1, "1", True, [1], 1e400],
    "top_p": [0, -1, 1.1, "1", True, {}],
    "top_k": [-1, 1.5, "1", True, []],
    "repetition_penalty": [0, -1, 11, "1", True],
    "presence_penalty": [-2.1, 2.1, "0", True],
    "frequency_penalty": [-2.1, 2.1, "0", True],
    "logit_bias": [[], "a", {"a": 1}, {"1": 101}, {"1": "x"}, {"99999": 1}, {"-1": 0}],
    "seed": [-1, 2**63, 1.5, "1", True],
    "stop": ["", [""], ["a"] * 17, 5, "x" * 257, {}],
    "stream": [1, "true", [], 0],
    "user": [5, "u" * 257, []],
    "truncate_prompt": [1, "yes"],
    "max_tokens": [-1, 1.5, "5", True, []],
    "logprobs": [-1, 21, 1.5, "1"],
    "best_of": [0, 2, "1"],
    "echo": [1, "true"],
    "suffix": ["x", 1],
    "prompt": [5, {}, [1, "a"], [-1], [10**6], [[10**6]], "x" * 4000],
    "model": ["", 5, None, [], "m" * 257],
    "nonsense": [1, None, "x"],
}
RIGHT = {
    "n": [1, 2],
    "temperature": [0, 1, 2],
    "top_p": [0.1, 1],
    "top_k": [0, 5],
    "repetition_penalty": [1, 1.5],
    "seed": [0, 2**63 - 1],
    "stop": ["a", ["a", "b"]],
    "max_tokens": [1, 3],
    "logprobs": [0, 5],
    "logit_bias": [{"1": 5}, {}],
    "user": ["me", ""],
    "echo": [True, False],
}


def parameters(port, draw, n):
    """S6: each wrong value beside sound values of another parameter is refused by its name, quickly."""
    client, bad, spent, cases = Client(port), [], [], 0
    pairs = [(name, value, other, sound) for name in WRONG for value in WRONG[name] for other in RIGHT if other != name
             for sound in RIGHT[other]]  # fmt: skip
    for name, value, other, sound in (pairs * (1 + n // len(pairs)))[: max(n, len(pairs))]:
        body = {"model": NAME, "prompt": "a", "max_tokens": 1, other: sound, name: value}
        status, _, content, seconds = client.ask("/v1/completions", json.dumps(body).encode())
        cases += 1
        spent.append(seconds)
        error = json.loads(content).get("error") or {}
        allowed = (400, 404) if name == "model" else (400,)
        if status not in allowed or (error.get("param") != name and value != 1e400):
            bad.append(f"{name}={value!r:.50} with {other}: {status} {error}")
    spent.sort()
    p99 = spent[int(0.99 * len(spent))]
    return bad, {"cases": cases, "p99_seconds": p99}


CAMPAIGNS = {
    "parameters": (parameters, 5000),
    "streams": (streams, 10_000),
    "invariance": (invariance, 10_000),
    "disconnects": (disconnects, 1000),
    "overload": (overload, 60),
    "fuzz": (fuzz, 20_000),
}
SERVER = {}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CAMPAIGNS, default=list(CAMPAIGNS))
    parser.add_argument("--share", type=float, default=1.0, help="of the usual number of cases")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = SERVER[port] = subprocess.Popen([sys.executable, __file__, "--serve", str(port)], stderr=subprocess.PIPE)
    rows, client, ready = {}, Client(port), False
    while not ready:
        try:
            ready = client.ask("/health")[0] == 200
        except OSError:
            time.sleep(0.05)
    for name in given.only:
        campaign, n = CAMPAIGNS[name]
        started = time.monotonic()
        bad, found = campaign(port, random.Random(given.seed), max(1, int(n * given.share)))
        found["seconds_taken"] = round(time.monotonic() - started)
        rows[name] = {**found, "bad": len(bad), "first_bad": bad[:5]}
        print(name, json.dumps(rows[name]), flush=True)
        if given.out:
            machine = {"machine": platform.machine(), "cpus": 2, "python": platform.python_version()}
            head = {
                "date": str(date.today()),
                "command": f"python benchmarks/serve_campaign.py --seed {given.seed} --share {given.share:g}",
            }
            given.out.write_text(json.dumps({**head, **machine, "campaigns": rows}, indent=1) + "\n")
    alive = process.poll() is None
    process.terminate()
    code = process.wait(30)
    print(f"the server {'lived' if alive else 'DIED'} and ended with {code}")
    sys.exit(0 if alive and code == 0 and not any(row["bad"] for row in rows.values()) else 1)


if __name__ == "__main__":
    main()
