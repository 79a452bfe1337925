"""What fewer bits cost: bits per byte of runs on their held-out part, read by the network that generates.

    python benchmarks/quantised.py runs/a runs/b --out benchmarks/results/DATE-quantised.json

The text is read in windows of the model's context, each beginning anew, through the same engine's passes that read
prompts, so that the rounding of weights, of the inputs of products and of the cache all count. `torch` is
the network in float32 without the kernel, and must agree with `float32`.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch

from cerebras_gpt import __version__, checkpoint
from cerebras_gpt.data.shards import Shards
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.generate.network import Network
from cerebras_gpt.generate.slots import PAGE
from cerebras_gpt.generate.weights import KINDS, stored_bytes
from cerebras_gpt.process import processor

SIDES = ("torch", *KINDS)


@torch.inference_mode()
def nats(network, ids):
    """Minus the logarithm of the probability of every id but the first of each window."""
    seq_len, total, count = network.architecture.seq_len, 0.0, 0
    for begin in range(0, len(ids) - 1, seq_len):
        window = ids[begin : begin + seq_len + 1]
        cache = network.slots(1, len(window))
        for start in range(0, len(window) - 1, PAGE):
            piece = window[start : min(start + PAGE, len(window) - 1)]
            following = torch.tensor(window[start + 1 : start + 1 + len(piece)])  # (T,)
            logits = network.logits(network.hidden(network.prefill(piece, 0, start), cache))[: len(piece)]  # (T, V)
            total -= float(logits.double().log_softmax(-1).gather(1, following[:, None]).sum())
            count += len(piece)
    return total, count


def measured(run, weights, ids, n_bytes_per_token):
    began = time.perf_counter()
    lm = LM.load(run, "float32" if weights == "torch" else weights)
    network = Network(lm.model) if weights == "torch" else lm.network
    seconds = time.perf_counter() - began
    total, count = nats(network, ids)
    head = lm.model.head_table.numel()
    blocks = sum(p.numel() for name, p in lm.model.named_parameters() if name.startswith("blocks.") and p.dim() == 2)
    return {
        "nats_per_token": total / count,
        "bits_per_byte": total / count / n_bytes_per_token / math.log(2),
        "megabytes": stored_bytes(blocks, head, lm.weights) / 1e6,
        "load_seconds": round(seconds, 2),
        "kernel": type(network).__name__ == "KernelNetwork",
    }


def held_out(run, data, n_tokens):
    """The first held-out ids of a run, and how many bytes a token stands for."""
    lm = LM.load(run)
    shards = Shards.open(data, "val")
    ids = shards.tokens(0, min(n_tokens, shards.n_tokens)).tolist()
    return ids, len(lm.tokenizer.decode_bytes(ids)) / len(ids)


def one_run(run, data, n_tokens):
    ids, n_bytes = held_out(run, data, n_tokens)
    found = {side: measured(run, side, ids, n_bytes) for side in SIDES}
    base = found["torch"]["bits_per_byte"]
    for side, figures in found.items():
        figures["cost_percent"] = 100 * (figures["bits_per_byte"] / base - 1)
        told = f"{figures['bits_per_byte']:.4f} bits per byte ({figures['cost_percent']:+.3f} %)"
        print(f"{run.name} {side}: {told}, {figures['megabytes']:.1f} MB", flush=True)
    n_parameters = checkpoint.load_model(checkpoint.resolve(run)).architecture.n_parameters
    return {"parameters": n_parameters, "tokens": len(ids), "kinds": found}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--data", type=Path, help="shards; else those inside the run")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    found = {run.name: one_run(run, asked.data or run / "data", asked.tokens) for run in asked.runs}
    result = {
        "cerebras_gpt": __version__,
        "torch": torch.__version__,
        "machine": f"{torch.get_num_threads()} threads, {processor()}",
        "runs": found,
    }
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
