"""Clients: one that keeps its connection, and raw bytes; sound requests and what they come to."""

import contextlib
import http.client
import json
import random
import socket
import struct
import time

from benchmarks.serving_faults.target import NAME, PATIENCE_SECONDS

WORDS = ["The cat", "Für die Katze", "猫はマット", "🐈 sat", "", "a b c d e f", "\n\n", "x" * 60]
ROUTE = "/v1/completions"


class Client:
    """One connection that is kept, as a client keeps it."""

    def __init__(self, port, patience=PATIENCE_SECONDS):
        self.port, self.patience, self.kept = port, patience, None

    def ask(self, path, body=None, method=None):
        """Status, headers, content, seconds; raises TimeoutError where nothing comes."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if content is not None else {}
        started = time.perf_counter()
        for fresh in (False, True):  # a connection that the server has closed meanwhile is opened again, once
            if self.kept is None or fresh:
                self.kept = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.patience)
            try:
                self.kept.request(method or ("GET" if content is None else "POST"), path, content, headers)
                reply = self.kept.getresponse()
                return reply.status, dict(reply.getheaders()), reply.read(), time.perf_counter() - started
            except (http.client.HTTPException, ConnectionError):
                if fresh:
                    raise
        raise AssertionError

    def complete(self, body):
        """The answer to a completion as JSON."""
        return json.loads(self.ask(ROUTE, body)[2])

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

    def conserved(self):
        """What is wrong with the sum of ends, once nothing is under way."""
        found = self.settled()
        ended = sum(found[f"{kind}_total"] for kind in ("completed", "cancelled", "failed"))
        return [] if found["accepted_total"] == ended else [f"accepted {found['accepted_total']}, ended {ended}"]

    def waited(self, seconds=PATIENCE_SECONDS):
        """The client once the server answers that it is well; raises TimeoutError."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                if self.ask("/health")[0] == 200:
                    return self
            time.sleep(0.02)
        raise TimeoutError(f"the server is not well after {seconds:g} s")


def drawn(seed, number):
    """The choices of one case, whatever the cases before it chose."""
    return random.Random(f"{seed} {number}")


def completion(draw, **given):
    """A sound request."""
    body = {"model": NAME, "prompt": draw.choice(WORDS), "max_tokens": draw.randint(1, 12), "seed": draw.randrange(99)}
    return {**body, "temperature": draw.choice([0, 0.7, 1.3]), **given}


CANARY = completion(random.Random(0), temperature=0, max_tokens=12)
"""A request whose answer may never change."""


def texts(answer):
    """The texts of an answer; what it says instead if it has none."""
    return [choice["text"] for choice in answer["choices"]] if "choices" in answer else answer


def events(content):
    """The documents of a stream, without its last mark."""
    lines = [line[6:] for line in content.decode().split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def request(body, path=ROUTE, method="POST", headers=()):
    """One request as bytes."""
    content = json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode() + content


def connected(port, seconds=PATIENCE_SECONDS):
    """A plain connection."""
    return socket.create_connection(("127.0.0.1", port), seconds)


def read_all(plain):
    """All that comes until the other side closes; raises TimeoutError where it does not."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := plain.recv(65536):
            parts.append(part)
    return b"".join(parts)


def reset(plain):
    """Closes with RST, as a process that is killed."""
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    plain.close()


def share(values, part):
    """The value below which that part of all lie, rounded."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))], 4) if ordered else None
