"""Training speed on one GPU: ours against nanoGPT as its users start it, and against torch's own ceilings.

    python benchmarks/train_gpu.py --nanogpt CHECKOUT --out benchmarks/results/DATE-train-gpu.json

The family's shapes (Dey et al. 2023, table 1) with 2,048 tokens a sequence and the paper's batch sizes. Ours is what
`pretrain` does: it tries its executions, whose speeds are told too, and trains with the best, sums in one order.
nanoGPT is its model and optimizer with the settings of its train.py: 12 sequences at a time, compiled, bfloat16
autocast, tf32, fused AdamW. Both are timed over some micro-batches and an update apart, and put together for the whole
batch. Every contender is a process of its own. "offload" is ours with weights, gradients and optimizer in the memory
of the host (--offload), as where a GPU is too small for them. MFU counts 6 FLOPs for each weight
of blocks and head and 6 L T d of causal attention, against the largest product measured here.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from train_peers import ask, gpt2_like, plan_of

SHAPES = {
    "111M": (768, 10, 12, 120),
    "256M": (1088, 14, 17, 264),
    "590M": (1536, 18, 12, 264),
    "1.3B": (2048, 24, 16, 528),
}
"""Width, layers, heads, sequences a step."""
SEQ_LEN, VOCAB_SIZE, THEIR_VOCAB_SIZE, THEIR_SEQUENCES = 2048, 50257, 50304, 12
GROUP = 4
"""Micro-batches that are timed together."""


def our_plan(name):
    *sizes, batch_size = SHAPES[name]
    plan = plan_of((*sizes, VOCAB_SIZE, SEQ_LEN, batch_size))
    return replace(plan, steps=20 * plan.architecture.n_parameters // plan.tokens_per_step)


def timed(work, seconds, fewest=3):
    """Seconds of one call, the median of several."""
    import torch

    work()
    spent = []
    while sum(spent) < seconds or len(spent) < fewest:
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        spent.append(time.perf_counter() - began)
    return sorted(spent)[len(spent) // 2]


def found(tokens_per_step, group_tokens, group, update, started, first):
    import torch

    return {
        "tokens_per_second": tokens_per_step / (group * tokens_per_step / group_tokens + update),
        "group_seconds": group,
        "update_seconds": update,
        "peak_bytes": torch.cuda.max_memory_allocated(),
        "startup_seconds": started,
        "first_seconds": first,
    }


def ours(name, seconds):
    began = time.perf_counter()
    import torch

    from cerebras_gpt.data.batches import Batch
    from cerebras_gpt.distributed import World
    from cerebras_gpt.train.calibrate import ranking
    from cerebras_gpt.train.device import forget_peak
    from cerebras_gpt.train.execution import gradients
    from cerebras_gpt.train.speed import Stopwatch, TrainingStep

    plan = our_plan(name)
    ranked = ranking(plan, Stopwatch(seconds / 4))
    trials = [{**vars(one.execution), **one.speed._asdict()} for one in ranked.trials]
    execution = ranked.trials[0].execution
    forget_peak()
    step = TrainingStep(plan, execution)
    rows = min(plan.batch_size, GROUP * execution.micro_batch_size)
    batch = Batch(*(x.repeat(-(-rows // len(x)), 1)[:rows] for x in step.batch))
    started = time.perf_counter() - began

    def group():
        step.adamw.let_go()
        gradients(step.model, batch, execution, World())

    began = time.perf_counter()
    group()
    torch.cuda.synchronize()
    first = time.perf_counter() - began
    spent = timed(group, seconds)
    of_update = timed(step.update, seconds / 4)
    result = found(plan.tokens_per_step, rows * SEQ_LEN, spent, of_update, started, first)
    return result | {"execution": vars(execution), "trials": trials}


def offload(name, seconds):
    """Ours with weights and optimizer in the memory of the host."""
    began = time.perf_counter()
    import torch

    from cerebras_gpt.data.batches import Batch
    from cerebras_gpt.distributed import World
    from cerebras_gpt.train.execution import Execution, gradients
    from cerebras_gpt.train.optim import optimizer
    from cerebras_gpt.train.sharding import new_model

    plan, execution = our_plan(name), Execution("bfloat16", 32, "cuda", offload=True, recompute=True)
    model = execution.placed(new_model(plan, execution))
    adamw = optimizer(model, plan)
    ids = torch.randint(VOCAB_SIZE, (GROUP * 32, SEQ_LEN + 1), device="cuda")
    batch, started = Batch(ids[:, :-1], ids[:, 1:]), time.perf_counter() - began

    def group():
        adamw.let_go()
        gradients(model, batch, execution, World())

    def update():
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()

    began = time.perf_counter()
    group()
    update()
    torch.cuda.synchronize()
    first = time.perf_counter() - began
    spent = timed(group, seconds, 2)
    of_update = timed(update, seconds / 4, 2)
    result = found(plan.tokens_per_step, batch.ids.numel(), spent, of_update, started, first)
    return result | {"execution": vars(execution)}


def nanogpt(name, seconds, checkout):
    began = time.perf_counter()
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    *sizes, batch_size = SHAPES[name]
    with torch.device("cuda"):
        shape = (*sizes, THEIR_VOCAB_SIZE, SEQ_LEN, batch_size)
        model, adamw, loss_of = gpt2_like(shape, checkout, False, "cuda")
        ids = torch.randint(VOCAB_SIZE, (THEIR_SEQUENCES, SEQ_LEN + 1))
    net, x, y = torch.compile(model), ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    n_micro_batches = batch_size / THEIR_SEQUENCES
    started = time.perf_counter() - began

    def group():
        for _ in range(GROUP):
            with torch.autocast("cuda", torch.bfloat16):
                loss = loss_of(net, x, y) / n_micro_batches
            loss.backward()

    def update():
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()

    began = time.perf_counter()
    group()
    torch.cuda.synchronize()
    first = time.perf_counter() - began
    spent = timed(group, seconds)
    of_update = timed(update, seconds / 4)
    return found(batch_size * SEQ_LEN, GROUP * THEIR_SEQUENCES * SEQ_LEN, spent, of_update, started, first)


def peak():
    from cerebras_gpt.bench import measure_machine
    from cerebras_gpt.train.speed import Stopwatch

    return measure_machine(Stopwatch(0.3))._asdict()


def line(name, contender, run, flops, peak_flops):
    if "failed" in run:
        return f"{name:<6} {contender:<8} failed: {run['failed'][:200]}"
    rate = run["tokens_per_second"]
    how = (
        {k: run["execution"][k] for k in ("micro_batch_size", "compiled", "recompute", "offload")}
        if "execution" in run
        else ""
    )
    return (
        f"{name:<6} {contender:<8} {rate:>11,.0f} tokens/s  MFU {rate * flops / peak_flops:.3f} "
        f"({rate * flops / 989.4e12:.3f} of 989)  {run['peak_bytes'] / 1e9:.1f} GB  "
        f"start {run['startup_seconds']:.0f} s, first {run['first_seconds']:.0f} s  {how}"
    )


def compare(given):
    from cerebras_gpt.plan.flops import matmul_flops_per_token

    machine = ask(["--contender", "peak"], None, __file__)
    print(machine, flush=True)
    results = {}
    for name in given.shapes:
        flops = matmul_flops_per_token(our_plan(name).architecture)
        results[name] = {"flops_per_token": flops, "runs": []}
        turns = ["ours", *(["nanogpt"] if given.nanogpt else [])] * given.rounds
        turns += ["offload"] if name in given.offload else []
        for contender in turns:
            arguments = ["--contender", contender, "--shapes", name, "--seconds", str(given.seconds)]
            run = ask([*arguments, *(["--nanogpt", given.nanogpt] if given.nanogpt else [])], None, __file__)
            results[name]["runs"].append({"contender": contender, **run})
            print(line(name, contender, run, flops, machine["peak_flops"]["bfloat16"]), flush=True)
            if given.out:
                given.out.write_text(json.dumps({"machine": machine, "shapes": results}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", help="folder of a nanoGPT checkout")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--offload", nargs="*", choices=SHAPES, default=["590M"], help="also with the host's memory")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="of timed micro-batches")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--contender", choices=["ours", "nanogpt", "offload", "peak"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contender is None:
        compare(given)
        return
    made = {
        "ours": lambda: ours(given.shapes[0], given.seconds),
        "offload": lambda: offload(given.shapes[0], given.seconds),
        "nanogpt": lambda: nanogpt(given.shapes[0], given.seconds, given.nanogpt),
        "peak": peak,
    }[given.contender]()
    sys.stdout.flush()
    print("\n" + json.dumps(made))


if __name__ == "__main__":
    main()
