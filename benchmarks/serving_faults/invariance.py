"""S8: tokens and log-probabilities of a request are the same alone and among up to 15 others."""

from concurrent.futures import ThreadPoolExecutor

from benchmarks.serving_faults.asking import Client, completion, drawn
from benchmarks.serving_faults.target import Target

MOST = 16


def crowd(clients, pool, draw, size):
    """Whether each of some requests got together what it got alone."""
    bodies = [
        completion(draw, max_tokens=draw.randint(1, 16), seed=draw.randrange(2**40), logprobs=2) for _ in range(size)
    ]
    alone = [clients[0].complete(body)["choices"] for body in bodies]
    among = pool.map(lambda client, body: client.complete(body).get("choices"), clients[:size], bodies)
    return [
        [] if one == other else [f"{body} differs among {size}"]
        for body, one, other in zip(bodies, alone, among, strict=True)
    ]


def campaign(report, folder, seed, numbers):
    """As many requests as numbers, in crowds of 2 to 16; a crowd is drawn by the number of its first."""
    with Target(folder) as target, ThreadPoolExecutor(MOST) as pool:
        clients = [Client(target.port) for _ in range(MOST)]
        clients[0].waited()
        number, last = numbers[0], numbers[-1]
        while number <= last:
            draw = drawn(seed, number)
            found = crowd(clients, pool, draw, draw.randint(2, MOST))
            for problems in found:
                report.case(number, problems)
            number += len(found) if len(numbers) > 1 else 1
        report.case("end", target.end())
