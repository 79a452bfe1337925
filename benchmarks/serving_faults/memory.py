"""S2: nothing grows over many mixed requests, readers who leave among them."""

import statistics

from benchmarks.serving_faults.asking import ROUTE, Client, completion, connected, drawn, request, reset
from benchmarks.serving_faults.target import NAME, Target

BYTES_PER_REQUEST = 1024
WARMING, SAMPLES = 0.2, 60


def mixed(client, draw):
    """One request of some kind; what is wrong with its answer."""
    kind, allowed = draw.randrange(8), (200,)
    if kind == 0:
        with connected(client.port) as plain:
            plain.sendall(request(completion(draw, prompt="a", max_tokens=100, stream=True)))
            if draw.random() < 0.7:
                plain.recv(draw.randint(1, 2000))
            reset(plain)
        return []
    if kind == 1:
        status, *_ = client.ask("/v1/embeddings", {"model": NAME, "input": ["a cat", "a dog"][: draw.randint(1, 2)]})
    elif kind == 2:
        body = {"model": NAME, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
        status, *_ = client.ask("/v1/chat/completions", body)
    elif kind == 3:
        status, *_ = client.ask(ROUTE, completion(draw, max_tokens=-1))
        allowed = (400,)
    elif kind == 4:
        status, *_ = client.ask(draw.choice(["/metrics", "/health", "/v1/models", "/", "/openapi.json"]))
    else:
        status, *_ = client.ask(ROUTE, completion(draw, stream=kind == 5, logprobs=draw.choice([None, 3])))
    return [] if status in allowed else [f"{status} for kind {kind}"]


def campaign(report, folder, seed, numbers):
    """Warms up with a fifth of the requests, then samples the process as the others go on."""
    warming = int(WARMING * len(numbers))
    every, samples = max(1, (len(numbers) - warming) // SAMPLES), []
    with Target(folder) as target:
        client = Client(target.port).waited()
        for number in numbers:
            report.case(number, mixed(client, drawn(seed, number)))
            if number == warming:
                client.settled()
                base = (target.descriptors, target.status("Threads"))
            if number >= warming and (number - warming) % every == 0:
                samples.append((number, target.memory))
        client.settled()
        found = (target.descriptors, target.status("Threads"))
        report.case("descriptors and threads", [f"{base} before, {found} after"] if found > base else [])
        report.case("conservation", client.conserved())
        report.case("end", target.end())
    slope = statistics.linear_regression(*zip(*samples, strict=True)).slope if len(samples) > 1 else 0.0
    report.case("slope", [f"{slope:.0f} bytes per request"] if slope > BYTES_PER_REQUEST else [])
    report.figures |= {
        "bytes per request": round(slope, 1),
        "megabytes first, last": [round(samples[at][1] / 1e6, 1) for at in (0, -1)],
        "descriptors, threads": list(found),
    }
