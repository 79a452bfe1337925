"""Training speed: ours against nanoGPT, transformers and litgpt, as their users start them and each at its best.

    python benchmarks/train_peers.py --nanogpt CHECKOUT --out benchmarks/results/DATE-train-peers.json

Every measurement is a process of its own; the contenders take turns, round by round, and medians are compared, so
believe the ratios. "As started": bfloat16 autocast, the optimizer that each brings, nothing else set. "At its best":
compiled, fused AdamW, threads bound, and a packaged allocator preloaded (--allocator), or else glibc told to keep its
memory. Ours is what `pretrain` does: it chooses its execution first, which is counted as start-up. A contender that is
not installed is left out by name. MFU is against the largest matrix product measured in the same round.
About 15 minutes with the default --rounds and --seconds.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

SHAPES = {
    "111M-512": (768, 10, 12, 50257, 512, 4),
    "111M-2048": (768, 10, 12, 50257, 2048, 1),
    "10M": (320, 8, 5, 8192, 512, 8),
    "1M": (128, 6, 2, 4096, 256, 16),
}
"""Width, layers, heads, vocabulary, tokens a sequence, sequences a step."""

CONTENDERS = ("ours", "nanogpt", "nanogpt-best", "transformers", "transformers-best", "litgpt", "litgpt-best")
KEEP = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184:glibc.malloc.hugetlb=1"
WARM_STEPS, FEWEST_STEPS = 2, 3
PATIENCE_SECONDS = 1200


def gpt2_like(shape, path, best, device="cpu"):
    """nanoGPT, from a checkout: its model and its optimizer."""
    import torch

    sys.path.insert(0, path)
    from model import GPT, GPTConfig

    d_model, n_layers, n_heads, vocab_size, seq_len, _ = shape
    model = GPT(GPTConfig(seq_len, vocab_size, n_layers, n_heads, d_model, dropout=0.0, bias=True))
    adamw = model.configure_optimizers(0.1, 1e-4, (0.9, 0.95), device)
    if best:
        adamw = torch.optim.AdamW(adamw.param_groups, lr=1e-4, fused=True)
    return model, adamw, lambda net, x, y: net(x, y)[1]


def transformers_gpt2(shape, path, best):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    d_model, n_layers, n_heads, vocab_size, seq_len, _ = shape
    sizes = {"n_embd": d_model, "n_layer": n_layers, "n_head": n_heads, "vocab_size": vocab_size}
    off = {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0, "use_cache": False}
    model = GPT2LMHeadModel(GPT2Config(n_positions=seq_len, activation_function="gelu", **sizes, **off)).train()
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=best or None)
    return model, adamw, lambda net, x, y: net(x, labels=x).loss


def litgpt_gpt(shape, path, best):
    import torch
    from litgpt import GPT, Config
    from litgpt.utils import chunked_cross_entropy

    d_model, n_layers, n_heads, vocab_size, seq_len, _ = shape
    sizes = {"n_embd": d_model, "n_layer": n_layers, "n_head": n_heads, "block_size": seq_len}
    vocabulary = {"vocab_size": vocab_size, "padded_vocab_size": vocab_size}
    like_gpt2 = {"norm_class_name": "LayerNorm", "mlp_class_name": "GptNeoxMLP", "parallel_residual": False}
    model = GPT(Config(bias=True, **sizes, **vocabulary, **like_gpt2))
    model.lm_head.weight = model.transformer.wte.weight
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=best or None)
    return model, adamw, lambda net, x, y: chunked_cross_entropy(net(x), y, chunk_size=0)


BUILDERS = {"nanogpt": gpt2_like, "transformers": transformers_gpt2, "litgpt": litgpt_gpt}


def peer_step(name, shape, path):
    """A training step of a peer as a function, and how many seconds its making took."""
    import torch

    best = name.endswith("-best")
    torch.manual_seed(0)
    model, adamw, loss_of = BUILDERS[name.removesuffix("-best")](shape, path, best)
    net = torch.compile(model) if best else model
    ids = torch.randint(shape[3], (shape[5], shape[4] + 1), generator=torch.Generator().manual_seed(1))
    x, y = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    def step():
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(net, x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        return loss.item()

    return step, {}


def plan_of(shape):
    from cerebras_gpt.model.architecture import Architecture
    from cerebras_gpt.plan.families import mup
    from cerebras_gpt.plan.plan import Plan

    *sizes, batch_size = shape
    architecture = Architecture(*sizes)
    return Plan("bench", architecture, mup(architecture), batch_size, steps=2, warmup_steps=1, peak_lr=1e-3)


def our_step(name, shape, path):
    """A training step of ours, with the execution that a run here would choose."""
    from cerebras_gpt.process import bind_threads, keep_memory

    bind_threads()
    keep_memory()
    from cerebras_gpt.process import cache_folder, forget_peak_memory
    from cerebras_gpt.train.calibrate import remembered
    from cerebras_gpt.train.speed import Stopwatch, TrainingStep

    plan = plan_of(shape)
    execution = remembered(plan, Stopwatch(0.5), cache_folder()).execution
    forget_peak_memory()  # of the choosing; what training holds is asked
    training = TrainingStep(plan, execution)

    def step():
        for _ in range(round(training.n_micro_batches)):
            loss = training.micro_batch()
        training.update()
        training.adamw.let_go()
        return loss

    return step, vars(execution)


def run_contender(given):
    """In a process of its own: steps for some seconds, and everything there is to know about them."""
    began = time.perf_counter()
    shape = SHAPES[given.shape]
    step, settings = (our_step if given.contender == "ours" else peer_step)(given.contender, shape, given.nanogpt)
    started = time.perf_counter()
    first_loss = step()
    first = time.perf_counter() - started
    for _ in range(WARM_STEPS - 1):
        step()
    spent, cpu, wall = [], time.process_time(), time.perf_counter()
    while sum(spent) < given.seconds or len(spent) < FEWEST_STEPS:
        before = time.perf_counter()
        step()
        spent.append(time.perf_counter() - before)
    median = statistics.median(spent)
    from cerebras_gpt.process import peak_memory

    found = {
        "tokens_per_second": shape[4] * shape[5] / median,
        "startup_seconds": started - began,
        "compile_seconds": max(0.0, first - median),
        "cores_used": (time.process_time() - cpu) / (time.perf_counter() - wall),
        "peak_bytes": peak_memory(),
        "first_loss": first_loss,
        "settings": settings,
    }
    print(json.dumps(found))


def run_peak():
    from cerebras_gpt.process import bind_threads

    bind_threads()
    from cerebras_gpt.train.execution import Execution
    from cerebras_gpt.train.speed import measure_peak

    print(json.dumps({"peak_flops": measure_peak(Execution("bfloat16", 1), 1.0)}))


def surroundings(contender, allocator):
    """The environment of a contender: its user's own, or all that helps."""
    if not contender.endswith("-best"):
        return dict(os.environ)
    memory = {"LD_PRELOAD": allocator} if allocator else {"GLIBC_TUNABLES": KEEP}
    return {**os.environ, "OMP_PROC_BIND": "close", "OMP_PLACES": "cores", **memory}


def ask(arguments, environment, script=__file__):
    """What a child process prints last; none and its complaint if it fails or takes too long."""
    command = [sys.executable, script, *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        return {"failed": f"longer than {PATIENCE_SECONDS} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"failed": (done.stderr.strip().splitlines() or ["nothing said"])[-1]}
    return json.loads(lines[-1])


def installed(contender, nanogpt):
    if contender == "ours":
        return True
    package = contender.removesuffix("-best")
    return nanogpt is not None if package == "nanogpt" else importlib.util.find_spec(package) is not None


def summary(shape, rounds, peaks):
    """Medians over the rounds, by contender, and how many times as fast ours is."""
    from cerebras_gpt.plan.flops import matmul_flops_per_token

    flops, peak = matmul_flops_per_token(plan_of(SHAPES[shape]).architecture), statistics.median(peaks)
    found = {}
    for contender in rounds[0]:
        good = [one[contender] for one in rounds if "failed" not in one[contender]]
        if not good:
            found[contender] = rounds[0][contender]
            continue
        keys = [key for key, value in good[0].items() if isinstance(value, int | float)]
        found[contender] = {key: statistics.median([run[key] for run in good]) for key in keys}
        found[contender] |= {"settings": good[-1]["settings"]}
        found[contender]["flops_share"] = found[contender]["tokens_per_second"] * flops / peak
    ours = found["ours"].get("tokens_per_second", 0.0)
    for values in found.values():
        if "failed" not in values:
            values["ours_is_times_as_fast"] = ours / values["tokens_per_second"]
    return {"peak_flops": peak, "contenders": found}


def table(shape, found):
    print(f"\n{shape}   matrix products: {found['peak_flops'] / 1e9:,.0f} GFLOP/s")
    print(f"{'':<18} {'tokens/s':>9} {'MFU':>5} {'GB':>5} {'start s':>8} {'compile s':>9} {'cores':>5} {'ours is':>8}")
    for contender, run in found["contenders"].items():
        if "failed" in run:
            print(f"{contender:<18} failed: {run['failed']}")
            continue
        print(
            f"{contender:<18} {run['tokens_per_second']:>9,.0f} {run['flops_share']:>5.2f} "
            f"{run['peak_bytes'] / 1e9:>5.2f} {run['startup_seconds']:>8.1f} {run['compile_seconds']:>9.1f} "
            f"{run['cores_used']:>5.2f} {run['ours_is_times_as_fast']:>7.2f}x",
            flush=True,
        )


def compare(shape, given):
    """All contenders at one shape, taking turns."""
    names = [name for name in given.only or CONTENDERS if installed(name, given.nanogpt)]
    rounds, peaks = [], []
    for _ in range(given.rounds):
        peaks.append(ask(["--peak"], dict(os.environ))["peak_flops"])
        turn = {}
        for name in names:
            arguments = ["--contender", name, "--shape", shape, "--seconds", str(given.seconds)]
            arguments += ["--nanogpt", given.nanogpt] if given.nanogpt else []
            turn[name] = ask(arguments, surroundings(name, given.allocator))
        rounds.append(turn)
    return {**summary(shape, rounds, peaks), "rounds": rounds}


def here(note):
    """The kind of machine, for who reads the numbers."""
    import torch

    from cerebras_gpt.process import n_cores, processor

    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {"processor": processor(), "cores": n_cores(), **versions, "load": os.getloadavg()[0], "note": note}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", help="folder of a nanoGPT checkout")
    parser.add_argument("--allocator", help="library to preload for those at their best, e.g. libjemalloc.so.2")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8.0, help="measured steps of one contender in one round")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--only", nargs="+", choices=CONTENDERS)
    parser.add_argument("--note", default="", help="what else a reader must know, such as other work on the machine")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--shape", choices=SHAPES, help=argparse.SUPPRESS)
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak:
        run_peak()
    elif given.contender:
        run_contender(given)
    else:
        machine, found = here(given.note), {}
        for shape in given.shapes:
            found[shape] = compare(shape, given)
            table(shape, found[shape])
            if given.out:  # after every shape: an interrupted run keeps what it has
                given.out.write_text(json.dumps({"machine": machine, "shapes": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
