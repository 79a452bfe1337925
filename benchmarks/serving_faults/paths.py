"""S15: paths that lead out of the page's folder, ranges, methods: nothing from outside, nothing slow, nothing odd."""

import itertools
import json

from benchmarks.serving_faults.asking import connected, drawn, read_all
from benchmarks.serving_faults.target import Target

UPS = (
    "..",
    "%2e%2e",
    "%2E.",
    ".%2e",
    "..%00",
    "%252e%252e",
    "..;",
    "%c0%ae%c0%ae",
    "%uff0e%uff0e",
    "....//",
    "..\\",
    "%5c..",
)
SLASHES = ("/", "%2f", "%5c", "//", "/./", "%252f", "\\")
ROOTS = ("/page/", "/runs/", "/page/app.js/", "/", "/v1/models/", "/page/%00", "//", "/static/", "/runs/one/")
TARGETS = ("etc/passwd", "app.py", "secret.json", "metrics.jsonl", "proc/self/environ", "guard.py", "plan.json")
SECRETS = (b"root:x:", b"def ", b"OPEN SESAME", b"import ", b"PATH=", b"HOME=")
RANGES = (
    *("bytes=0-0", "bytes=-1", "bytes=0-", "bytes=5-2", "bytes=0-99999999999999999999", "bytes=a-b", "items=0-5"),
    *("bytes=" + ",".join("0-" for _ in range(n)) for n in (2, 100, 1400)),
    "bytes=" + ",".join(f"{n}-{n}" for n in range(1200)),
    "bytes=" + "0-1," * 2000,
)
GETS = (
    "/",
    "/page/app.js",
    "/page/style.css",
    "/page/runs.html",
    "/health",
    "/metrics",
    "/v1/models",
    "/openapi.json",
    "/runs",
)
POSTS = ("/v1/completions", "/v1/chat/completions", "/v1/embeddings")
METHODS = ("HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "PROPFIND", "get", "X" * 50)


def ask(port, method, path, *headers):
    """Status, head, content of one request on a connection of its own."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers, "", ""]
    with connected(port, 5) as plain:
        plain.sendall("\r\n".join(lines).encode("latin-1", errors="replace"))
        head, _, content = read_all(plain).partition(b"\r\n\r\n")
    return int(head[9:12] or 0), head.lower(), content


def escaping(draw):
    """A path that would like to be elsewhere."""
    up, slash = draw.choice(UPS), draw.choice(SLASHES)
    return (
        draw.choice(ROOTS)
        + (up + slash) * draw.randint(1, 9)
        + draw.choice(TARGETS)
        + draw.choice(["", "%00", "?x", "/"])
    )


def escaped(port, draw):
    """What is wrong with the answer to such a path."""
    path = escaping(draw)
    status, _, content = ask(port, "GET", path)
    found = [f"{status} for {path}"] if status not in (200, 400, 403, 404, 405) else []
    if any(secret in content for secret in SECRETS) and b"openapi" not in content[:20]:
        found.append(f"{path} gave {content[:100]!r}")
    if status == 200 and path.startswith("/page/"):
        found.append(f"{path} is found")
    return found


def methods(port):
    """Each route with each method it does not have: refused in the protocol's form, with what is allowed."""
    for path, method in itertools.product((*GETS, *POSTS), METHODS):
        status, head, content = ask(port, method, path)
        problems = [] if status in (400, 404, 405) or (method, status) == ("HEAD", 200) else [f"{status}"]
        if status == 405 and b"\r\nallow: " not in head:
            problems.append("405 without Allow")
        if method == "HEAD" and content:
            problems.append("a body after HEAD")
        if method != "HEAD" and status >= 400 and set(json.loads(content)) != {"error"}:
            problems.append(f"{content[:100]!r}")
        yield f"{method[:8]} {path}", problems


def ranges(port):
    """A range is not served: the whole comes, as often as it is long, and at once."""
    whole = ask(port, "GET", "/page/app.js")[2]
    for wanted in RANGES:
        status, _, content = ask(port, "GET", "/page/app.js", f"Range: {wanted}")
        fine = (status, content) == (200, whole) or status in (400, 416, 431)
        yield f"range {wanted[:30]}", [] if fine else [f"{status}, {len(content)} bytes"]


def campaign(report, folder, seed, numbers):
    """The paths, then every method and range."""
    runs = folder / "runs"
    (runs / "one").mkdir(parents=True)
    (runs / "one" / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "tokens": 5, "loss": 2.0}\n')
    for place in (folder, runs, runs / "one"):
        (place / "secret.json").write_text('"OPEN SESAME"')
    with Target(folder, runs=runs) as target:
        assert ask(target.port, "GET", "/runs/one")[0] == 200
        for number in numbers:
            report.case(number, escaped(target.port, drawn(seed, number)))
        for name, problems in itertools.chain(methods(target.port), ranges(target.port)):
            report.case(name, problems)
        report.case("end", target.end())
    report.figures |= {"paths": len(numbers), "methods": len((*GETS, *POSTS)) * len(METHODS), "ranges": len(RANGES)}
