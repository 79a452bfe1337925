"""S6: each wrong value beside a sound value of another parameter is refused by its name, quickly."""

import json

from benchmarks.serving_faults.asking import ROUTE, Client, share
from benchmarks.serving_faults.target import NAME, Target

REFUSAL_SECONDS = 0.1
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
PAIRS = [
    (name, value, {other: sound, another: other_sound})
    for name, values in WRONG.items()
    for value in values
    for other, sounds in RIGHT.items()
    for sound in sounds
    for another, other_sounds in RIGHT.items()
    for other_sound in other_sounds[:1]
    if len({name, other, another}) == 3
]


def refused(client, name, value, beside):
    """What is wrong with the answer to one wrong value, and its seconds."""
    body = {"model": NAME, "prompt": "a", "max_tokens": 1, **beside, name: value}
    status, _, content, seconds = client.ask(ROUTE, json.dumps(body).encode())
    error = json.loads(content).get("error") or {}
    allowed = (400, 404) if name == "model" else (400,)
    # Infinity is no JSON: the body is refused, not the parameter.
    if status in allowed and (error.get("param") == name or value == 1e400):
        return [], seconds
    return [f"{name}={value!r:.50} beside {beside}: {status} {error}"], seconds


def campaign(report, folder, seed, numbers):
    """Pairs spread over the whole table, which is walked with a stride."""
    spent, stride = [], 7919  # a prime: every part of the table is met whatever the number of cases
    with Target(folder) as target:
        client = Client(target.port).waited()
        for number in numbers:
            problems, seconds = refused(client, *PAIRS[(seed + number * stride) % len(PAIRS)])
            report.case(number, problems)
            spent.append(seconds)
        report.case("end", target.end())
    p99 = share(spent, 0.99)
    report.case("in time", [f"p99 {p99} s, more than {REFUSAL_SECONDS}"] if p99 > REFUSAL_SECONDS else [])
    report.figures |= {"of": len(PAIRS), "p50, p99 seconds": [share(spent, 0.5), p99]}
