"""S7: a stream is the whole answer in pieces, with the same reason to end and the same usage."""

from benchmarks.serving_faults.asking import ROUTE, Client, completion, drawn, events
from benchmarks.serving_faults.target import Target

USAGE = {"include_usage": True}


def pair(client, draw):
    """What differs between an answer and its stream."""
    stop = draw.choice([None, "e", ["a ", "猫"], "\n"])
    body = completion(draw, max_tokens=draw.randint(1, 30), seed=draw.randrange(2**40), stop=stop)
    whole = client.complete(body)
    parts = events(client.ask(ROUTE, {**body, "stream": True, "stream_options": USAGE})[2])
    choices = [part["choices"][0] for part in parts if part["choices"]]
    reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    found = []
    if "".join(choice["text"] for choice in choices) != whole["choices"][0]["text"]:
        found.append(f"other text for {body}")
    if reasons != [whole["choices"][0]["finish_reason"]] or parts[-1]["usage"] != whole["usage"]:
        found.append(f"{reasons} or usage differ for {body}")
    return found


def campaign(report, folder, seed, numbers):
    """Pairs, one after the other."""
    with Target(folder) as target:
        client = Client(target.port).waited()
        for number in numbers:
            report.case(number, pair(client, drawn(seed, number)))
        report.case("end", target.end())
