"""Generation on one GPU: ours against transformers in bfloat16, and against the time of reading the weights.

    python benchmarks/decode_gpu.py --out benchmarks/results/DATE-decode-gpu.json

Random weights of the family's shapes, greedy, prompts of 64 tokens, 128 new ones; a prompt of 1,024 with one new token.
Ours is the engine that `generate` and `serve` use, with everything around the network: sampling on the host included.
transformers is GPT-2 of the same shape through `generate` with its cache as it comes (eager, SDPA). "read" is the
weights' bytes over the measured bandwidth of a copy (read + written), the time under which no token of one sequence
can come. The contenders take turns.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from train_gpu import SEQ_LEN, SHAPES, VOCAB_SIZE

N_NEW, N_PROMPT, LONG = 128, 64, 1024
BATCHES = (1, 8, 64)


def our_model(name):
    from cerebras_gpt.model.architecture import Architecture
    from cerebras_gpt.model.gpt import GPT, initialize
    from cerebras_gpt.plan.families import mup

    shape = Architecture(*SHAPES[name][:3], VOCAB_SIZE, SEQ_LEN)
    with torch.device("cuda"):
        return initialize(GPT(shape, mup(shape)), torch.Generator("cuda").manual_seed(0))


class Ours:
    def __init__(self, name, weights):
        from cerebras_gpt.generate.precision import prepared

        self.network = prepared(our_model(name), weights).make_network()

    def __call__(self, prompts, n_new):
        from cerebras_gpt.generate.engine import Engine
        from cerebras_gpt.generate.request import Request
        from cerebras_gpt.generate.sampling import Sampling

        if getattr(self, "engine", None) is None or self.engine.cache.n_slots < len(prompts):
            self.engine = Engine(self.network, len(prompts))
        asked = [Request(tuple(ids), n_new, Sampling(temperature=0)) for ids in prompts]
        made = [self.engine.submit(request) for request in asked]
        while not self.engine.is_idle:
            self.engine.step()
        return sum(len(one.choices) for one in made)


class Transformers:
    def __init__(self, name, weights):
        from transformers import GPT2Config, GPT2LMHeadModel

        d_model, n_layers, n_heads, _ = SHAPES[name]
        sizes = {"n_embd": d_model, "n_layer": n_layers, "n_head": n_heads, "n_positions": SEQ_LEN}
        with torch.device("cuda"):
            model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB_SIZE, activation_function="gelu", **sizes))
        self.model = model.to(torch.bfloat16 if weights == "bfloat16" else torch.float32).eval()

    @torch.inference_mode()
    def __call__(self, prompts, n_new):
        ids = torch.tensor(prompts, device="cuda")
        ends = {"eos_token_id": None, "pad_token_id": 0}
        out = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=n_new,
            max_new_tokens=n_new,
            **ends,
        )
        return out[:, ids.shape[1] :].numel()


def prompts_of(n, length, seed):
    return torch.randint(VOCAB_SIZE, (n, length), generator=torch.Generator().manual_seed(seed)).tolist()


def speed(contender, n, length, n_new, seed):
    """New tokens a second, the prompt's time included, of fresh prompts."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    made = contender(prompts_of(n, length, seed), n_new)
    torch.cuda.synchronize()
    return made, time.perf_counter() - began


def measure(contenders, rounds):
    found = {}
    cases = [(f"batch {n}", n, N_PROMPT, N_NEW) for n in BATCHES] + [("prompt", 1, LONG, 1)]
    for case, n, length, n_new in cases:
        for name, contender in contenders.items():
            speed(contender, n, length, min(n_new, 8), 999)
            found[case, name] = []
        for turn in range(rounds):
            for name, contender in contenders.items():
                made, seconds = speed(contender, n, length, n_new, turn)
                found[case, name].append((length if case == "prompt" else made) / seconds)
        for name in contenders:
            print(f"  {case:<9} {name:<24} {sorted(found[case, name])[rounds // 2]:>10,.0f} tokens/s", flush=True)
    return {f"{case}: {name}": values for (case, name), values in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["111M", "1.3B"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    from cerebras_gpt.bench import measure_bandwidth
    from cerebras_gpt.train.speed import Stopwatch

    bandwidth = measure_bandwidth(Stopwatch(0.2))
    results = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "bytes_per_second": bandwidth}
    for name in given.shapes:
        contenders = {
            "ours, bfloat16": Ours(name, "bfloat16"),
            "transformers, bfloat16": Transformers(name, "bfloat16"),
            "ours, float32": Ours(name, "float32"),
        }
        n_bytes = 2 * sum(parameter.numel() for parameter in contenders["ours, bfloat16"].network.model.parameters())
        print(f"{name}: reading bfloat16 weights allows {bandwidth / n_bytes:,.0f} tokens/s", flush=True)
        results[name] = {"weights_bytes": n_bytes, "tokens_per_second": measure(contenders, given.rounds)}
        if given.out:
            given.out.write_text(json.dumps(results, indent=1) + "\n")
        del contenders
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
