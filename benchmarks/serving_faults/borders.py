"""S15: where one request ends and the next begins: lengths and chunks that two servers could read in two ways.

Every ambiguous request carries a second one, for a path of its own. Alone the server must refuse the first, or answer
it and close; behind nginx, whose connection to us is shared by all, the next honest reader must get its own answer.
"""

import contextlib
import shutil
import signal
import socket
import subprocess
import time

from benchmarks.serving_faults.asking import Client, connected
from benchmarks.serving_faults.target import Target

HIDDEN = b"/hidden-request"
SECOND = b"GET " + HIDDEN + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
EMPTY = b"0\r\n\r\n"
TRANSFERS = (
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding : chunked", b" Transfer-Encoding: chunked"),
    *(b"Transfer-Encoding:\tchunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked, identity"),
    *(b"Transfer-Encoding: identity, chunked", b"Transfer-Encoding: CHUNKED", b"Transfer-Encoding: \x0bchunked"),
    *(b"Transfer-Encoding:\r\n chunked", b"X: y\nTransfer-Encoding: chunked", b"X: y\rTransfer-Encoding: chunked"),
    *(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x", b"Transfer-Encoding: 'chunked'"),
    *(b"Transfer_Encoding: chunked", b"Transfer-Encoding\x00: chunked", b"Transfer-Encoding: chunked\x00"),
)
LENGTHS = (
    b"+%d",
    b"-%d",
    b"0x%x",
    b"%d, %d",
    b"%d, 0",
    b"%d\x0b",
    b"%d.0",
    b"%de0",
    b"\xd9\xa0%d",
    b"0%d",
    b"%d 0",
    b"",
)
CHUNKS = (
    b"0x0\r\n\r\n",
    b"00000000000000000\r\n\r\n",
    b"0;a=b\r\n\r\n",
    b"0 \r\n\r\n",
    b"-0\r\n\r\n",
    b"0\n\n",
    b"\r\n0\r\n\r\n",
)


def packed(*headers, body=b""):
    """The head of a POST with these headers, and what follows it."""
    lines = [b"POST /v1/completions HTTP/1.1", b"Host: 127.0.0.1", b"Content-Type: application/json", *headers]
    return b"\r\n".join([*lines, b"", b""]) + body


def ambiguous():
    """Each way by its name."""
    both = len(EMPTY + SECOND)
    found = {}
    for transfer in TRANSFERS:
        for order in ("length first", "length last"):
            headers = [b"Content-Length: %d" % both, transfer]
            found[f"{transfer!r}, {order}"] = packed(*headers[:: 1 if order[-2] == "s" else -1], body=EMPTY + SECOND)
        found[f"{transfer!r}, short length"] = packed(b"Content-Length: 3", transfer, body=EMPTY + SECOND)
    for length in LENGTHS:
        value = length.replace(b"%d", b"%d" % len(SECOND)).replace(b"%x", b"%x" % len(SECOND))
        found[f"length {value!r}"] = packed(b"Content-Length: " + value, body=SECOND)
    found["two lengths"] = packed(b"Content-Length: 0", b"Content-Length: %d" % len(SECOND), body=SECOND)
    found["two lengths, long first"] = packed(b"Content-Length: %d" % len(SECOND), b"Content-Length: 0", body=SECOND)
    for chunk in CHUNKS:
        found[f"chunk {chunk!r}"] = packed(b"Transfer-Encoding: chunked", body=chunk + SECOND)
    return found


HONEST = {"chunk b'0;a=b\\r\\n\\r\\n'", "chunk b'00000000000000000\\r\\n\\r\\n'"}
"""Whose end is plain to everybody: what follows is a second request, and may be answered."""


def told(port, data):
    """All that comes until the other side closes or says nothing for a second."""
    parts = []
    with connected(port, 1.0) as plain:
        plain.sendall(data)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while part := plain.recv(65536):
                parts.append(part)
    return b"".join(parts)


def alone(port, name, data):
    """What is wrong with the server's own reading."""
    answer = told(port, data)
    statuses = [int(part[4:7]) for part in answer.split(b"HTTP/1.")[1:] if part[4:7].isdigit()]
    if any(status >= 500 for status in statuses):
        return [f"{statuses}"]
    if len(statuses) > 1 and name not in HONEST:
        return [f"the hidden request was answered: {statuses}"]
    return []


CONF = """
daemon off; worker_processes 1; error_log stderr crit; pid {folder}/nginx.pid;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  upstream us {{ server 127.0.0.1:{port}; keepalive 1; }}
  server {{
    listen 127.0.0.1:{front};
    location / {{
      proxy_pass http://us; proxy_http_version 1.1; proxy_request_buffering off;
      proxy_set_header Connection ""; proxy_set_header Host $host;
    }}
  }}
}}
"""


@contextlib.contextmanager
def nginx(folder, port):
    """A proxy before the server that keeps one connection to it; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        front = free.getsockname()[1]
    conf = folder / "nginx.conf"
    conf.write_text(CONF.format(folder=folder, port=port, front=front))
    with subprocess.Popen(["nginx", "-p", str(folder), "-c", str(conf)], start_new_session=True) as proxy:
        try:
            for _ in range(200):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", front), 1):
                    break
                time.sleep(0.02)
            yield front
        finally:
            proxy.send_signal(signal.SIGTERM)


def behind(front, data):
    """What is wrong with the answers of two honest readers who come after it."""
    told(front, data)
    for _ in range(2):
        answer = told(front, b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        if b" 200 " not in answer[:15] or b'"object": "list"' not in answer:
            return [f"the next reader got {answer[:200]!r}"]
    return []


def campaign(report, folder, seed, numbers):
    """Every way alone, and behind nginx where there is one; `seed` has nothing to choose."""
    ways = [*ambiguous().items()]
    with Target(folder) as target:
        Client(target.port).waited()
        for number in [number for number in numbers if number < len(ways)]:
            report.case(f"{number} alone {ways[number][0]}", alone(target.port, *ways[number]))
        if shutil.which("nginx"):
            with nginx(folder, target.port) as front:
                for number in [number for number in numbers if number < len(ways)]:
                    report.case(f"{number} behind nginx {ways[number][0]}", behind(front, ways[number][1]))
        report.case("end", target.end())
    version = (
        subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr if shutil.which("nginx") else "none"
    )
    report.figures |= {"ways": len(ways), "proxy": version.strip(), "seed": seed}
