"""What guessing ahead with a smaller model buys: how often guesses are right, and how much faster text comes.

    python benchmarks/speculative.py --target runs/large --draft runs/small --data runs/large/data \
        --out benchmarks/results/DATE-speculative.json

Two parts. Runs: prompts of held-out text are continued with and without the draft, in turns, for two kinds of weights
and three ways to draw; once as the engine decides how many to guess, once with at least one guess made to look cheap.
Shapes: the 111M shape with a draft of 14M parameters, both of random weights, where a guess is replaced by the right
token with a set chance, so that the time is real and only the agreement is set; and the time of passes over 1 to 8
rows. One sequence at a time. Medians of ratios of neighbouring measurements, as the machine may be doing other things.
"""

import argparse
import json
import random
import statistics
import time
from pathlib import Path

import torch
from sides.ours import random_model

from cerebras_gpt import __version__
from cerebras_gpt.data.shards import Shards
from cerebras_gpt.generate.draft import Draft, Guess, effort
from cerebras_gpt.generate.engine import Engine
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.generate.precision import prepared
from cerebras_gpt.generate.request import Request
from cerebras_gpt.generate.sampling import Sampling
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.process import processor

PROMPT, NEW = 64, 64
DRAWN = {"greedy": Sampling(0), "0.8, top-p 0.95": Sampling(0.8, top_p=0.95), "as the model": Sampling()}
CHEAP = 0.05
LARGE = {"d_model": 768, "n_layers": 10, "n_heads": 12}
SMALL = {"d_model": 256, "n_layers": 2, "n_heads": 4}
CHANCES = (0.6, 0.75, 0.9)


def timed(engine, request):
    """Seconds after the first token, tokens since then, and the continuation."""
    made = engine.submit(request)
    while not made.n_new:
        engine.step()
    began, before = time.perf_counter(), made.n_new
    while not engine.is_idle:
        engine.step()
    return (time.perf_counter() - began) / max(1, made.n_new - before), made


def runs(target, draft, data, n_prompts):
    shards, told = Shards.open(data, "val"), {}
    windows = [shards.tokens(n * 997, PROMPT).tolist() for n in range(n_prompts)]
    for weights in ("int8", "auto"):
        lm = LM.load(target, weights, draft)
        assert lm.draft is not None
        costs = {"as decided": None, "made to look cheap": CHEAP}
        for drawn, sampling in DRAWN.items():
            for name, cost in costs.items():
                told[f"{weights}, {drawn}, {name}"] = pair(lm, windows, sampling, cost)
                print(weights, drawn, name, told[f"{weights}, {drawn}, {name}"], flush=True)
    sizes = [n_of(lm.model)]
    return {"parameters": [*sizes, n_of(lm.draft.model)], **told}


def n_of(model):
    return sum(parameter.numel() for parameter in model.parameters())


def pair(lm, windows, sampling, cost):
    ratios, plain_seconds, settled, right, n_new = [], [], 0, 0, 0
    for index, ids in enumerate(windows):
        request = Request(tuple(ids), NEW, sampling, index)
        alone, _ = timed(Engine(lm.network, 1), request)
        engine = Engine(lm.network, 1, draft=lm.draft.network)
        if cost is not None:
            engine.drafter.cost = cost
        helped, made = timed(engine, request)
        ratios.append(alone / helped)
        plain_seconds.append(alone)
        settled, right, n_new = settled + made.n_settled, right + made.n_right, n_new + made.n_new
    return {
        "times faster": round(statistics.median(ratios), 3),
        "plain tokens/s": round(1 / statistics.median(plain_seconds), 1),
        "guesses right": round(right / settled, 3) if settled else None,
        "guesses settled per token": round(settled / n_new, 3),
    }


class Told(Draft):
    """Guesses as a draft does, at its cost; then some are replaced by what the model will say."""

    chance, truth = 0.0, ()

    def _drawn(self, continuation, guesses, logits):
        guess = super()._drawn(continuation, guesses, logits)
        place = continuation.n_new + len(guesses)
        if place < len(self.truth) and self.choose.random() < self.chance:
            one = torch.zeros_like(guess.chances)
            one[self.truth[place]] = 1
            return Guess(self.truth[place], one)
        return guess


def shapes(rounds):
    told = {"effort of the draft": round(effort(Architecture(**SMALL)) / effort(Architecture(**LARGE)), 3)}
    ids = tuple(n * 7919 % 50000 for n in range(PROMPT))
    for weights in ("int8", "auto"):
        large = prepared(random_model(LARGE), weights).make_network()
        small = prepared(random_model(SMALL), weights).make_network()
        told[f"{weights}, milliseconds of a pass by rows"] = passes(large)
        told[f"{weights}, milliseconds of the draft's pass"] = passes(small)[1]
        request = Request(ids, NEW, Sampling(0))
        _, plain = timed(Engine(large, 1), request)
        for chance in CHANCES:
            ratios, per_token = [], []
            for _ in range(rounds):
                alone, _ = timed(Engine(large, 1), request)
                engine = Engine(large, 1, draft=small)
                engine.drafter = Told(small, large, 1, large.architecture.seq_len)
                engine.drafter.chance, engine.drafter.truth = chance, tuple(plain.ids[PROMPT:])
                engine.drafter.choose = random.Random(len(ratios))
                helped, made = timed(engine, request)
                assert made.ids == plain.ids
                ratios.append(alone / helped)
                per_token.append(made.n_settled / made.n_new)
            found = {"times faster": round(statistics.median(ratios), 2), "plain tokens/s": round(1 / alone, 1)}
            told[f"{weights}, {chance:.0%} right"] = {
                **found,
                "settled per token": round(statistics.mean(per_token), 2),
            }
            print(weights, chance, told[f"{weights}, {chance:.0%} right"], flush=True)
    return told


def passes(network):
    cache, found = network.slots(1, 300), {}
    for n in (1, 2, 4, 5, 8):
        best = float("inf")
        for _ in range(6):
            began = time.perf_counter()
            network.follow([5] * n, [0] * n, range(200, 200 + n), cache)
            best = min(best, time.perf_counter() - began)
        found[n] = round(best * 1000, 2)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--draft", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    with torch.inference_mode():
        told = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": f"{torch.get_num_threads()} threads, {processor()}",
            "versions": {"cerebras-gpt": __version__, "torch": torch.__version__},
            "runs": runs(asked.target, asked.draft, asked.data, asked.prompts),
            "shapes": shapes(asked.rounds),
        }
    asked.out.write_text(json.dumps(told, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
