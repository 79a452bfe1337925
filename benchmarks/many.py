"""Loses processes and hosts of a run on purpose, and compares what it ends with to a run that nothing disturbed.

python benchmarks/many.py ranks --faults 20      SIGKILL or SIGSTOP of a random rank under torchrun, which recovers;
                                                 at the end torchrun itself is killed
python benchmarks/many.py circle                 1, 2, 1, 2 processes under torchrun, all killed between
python benchmarks/many.py hosts                  two network namespaces, the cable pulled in mid-run (needs root)
python benchmarks/many.py tree                   what the tree of gradient sums costs one process

Every schedule follows from --seed. The result is one JSON object on standard output; progress goes to standard error.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch

from cerebras_gpt import checkpoint
from cerebras_gpt.data.batches import Batch
from cerebras_gpt.data.documents import Document
from cerebras_gpt.data.shards import pack
from cerebras_gpt.distributed import World
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.plan.families import mup
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.record import read_metrics
from cerebras_gpt.text.tokenizer import train_tokenizer
from cerebras_gpt.train.calibrate import Calibration, keep
from cerebras_gpt.train.execution import Execution, gradients

PATIENCE = 10.0
"""Seconds until a process that does not answer is taken for lost."""
ARCHITECTURE = Architecture(d_model=64, n_layers=2, n_heads=2, vocab_size=280, seq_len=32)
HOSTS = {"many-a": "10.77.0.1", "many-b": "10.77.0.2"}


def say(*words: object) -> None:
    print(*words, file=sys.stderr, flush=True)


def prepared(folder: Path, steps: int) -> Plan:
    """A pack and a plan in a folder."""
    choose = random.Random(0).choice
    who, does, what = ["the cat", "a dog", "my aunt"], ["sees", "wants", "finds"], ["milk", "rain", "home", "a ship"]
    texts = [" ".join(f"{choose(who)} {choose(does)} {choose(what)}." for _ in range(80)) for _ in range(40)]
    documents = [Document(f"{n}.txt", text) for n, text in enumerate(texts)]
    pack(documents, train_tokenizer(texts, ARCHITECTURE.vocab_size), folder / "data", val_fraction=0.1)
    settings = {"batch_size": 8, "warmup_steps": 10, "peak_lr": 6e-3, "evaluations": 2}
    plan = Plan("many", ARCHITECTURE, mup(ARCHITECTURE), steps=steps, saves=steps // 10, **settings)
    (folder / "plan.json").write_text(plan.to_json())
    return plan


def command(folder: Path, run: str, *launcher: str) -> list[str]:
    """A training process, or many of them if a launcher is given."""
    if not (folder / run).exists():
        keep(Calibration(Execution("bfloat16", 1), 1.0, 1.0, 1.0), folder / run)
    module = ["-m", "cerebras_gpt", "pretrain", str(folder / "plan.json")]
    options = ["--data", str(folder / "data"), "--out", str(folder / run), "--patience", str(PATIENCE)]
    return [sys.executable, *(("-m", "torch.distributed.run", *launcher) if launcher else ()), *module, *options]


def start(arguments: list[str], **environment: str) -> subprocess.Popen[bytes]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(arguments, start_new_session=True, env=env, **quiet)


def end_of(folder: Path, run: str) -> str:
    """SHA-256 of weights and optimizer."""
    path = checkpoint.resolve(folder / run)
    files = (path / name for name in ("model.safetensors", "optimizer.safetensors"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def steps_done(run: Path) -> tuple[int, int]:
    """Times that the run began, and its last step."""
    record = run / "metrics.jsonl"
    content = record.read_bytes() if record.exists() else b""  # asked often: not every row is parsed
    rows = [json.loads(line) for line in content.splitlines()[-4:] if line.endswith(b"}")]
    return content.count(b'"kind": "start"'), max((int(row.get("step", 0)) for row in rows), default=0)


def waited(condition, process: subprocess.Popen[bytes], seconds: float = 1800.0) -> float:
    """Seconds until the condition holds or the process ends."""
    begun = time.monotonic()
    while not condition() and process.poll() is None:
        if time.monotonic() - begun > seconds:
            raise TimeoutError(f"nothing happened for {seconds} s")
        time.sleep(0.05)
    return time.monotonic() - begun


def workers(agent: int) -> dict[int, int]:
    """The processes that a torchrun has started now: rank -> pid."""
    found = {}
    for pid in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        ranks = [int(text[5:]) for text in variables if text.startswith(b"RANK=")]
        if ranks:
            found[ranks[0]] = int(pid)
    return found


def ranks(folder: Path, n_faults: int, seed: int, n: int = 2) -> dict[str, object]:
    """Kills or stops a random rank again and again; torchrun alone puts things right. Last of all it is killed."""
    prepared(folder, steps=60 * (n_faults + 4))
    say("the run that nothing disturbs ...")
    start(command(folder, "whole")).wait()
    draw, faults = random.Random(seed), []
    torchrun = start(command(folder, "run", "--standalone", f"--nproc-per-node={n}", f"--max-restarts={2 * n_faults}"))
    run = folder / "run"
    for _ in range(n_faults):
        begun, step = steps_done(run)
        waited(lambda step=step: steps_done(run)[1] > step and len(workers(torchrun.pid)) == n, torchrun)
        time.sleep(draw.uniform(0.0, 0.5))
        if torchrun.poll() is not None:
            break
        rank, number = draw.randrange(n), draw.choice([signal.SIGKILL, signal.SIGSTOP])
        begun, step = steps_done(run)
        at = time.monotonic()
        os.kill(workers(torchrun.pid)[rank], number)
        waited(lambda begun=begun, step=step: not advancing(run, begun, step), torchrun)
        waited(lambda step=step: steps_done(run)[1] > step, torchrun)
        faults.append({"rank": rank, "signal": number.name, "seconds": round(time.monotonic() - at, 2)})
        say(faults[-1])
    left = left_alone(folder / "run", torchrun)
    code = start(command(folder, "run", "--standalone", f"--nproc-per-node={n}")).wait()
    return {
        "faults": faults,
        "times_begun": steps_done(run)[0],
        "torchrun_killed": left,
        "exit_code": code,
        "identical": end_of(folder, "whole") == end_of(folder, "run"),
        "recovery": {name: recovery(faults, name) for name in ("SIGKILL", "SIGSTOP")},
        "patience": PATIENCE,
    }


def left_alone(run: Path, torchrun: subprocess.Popen[bytes]) -> dict[str, object]:
    """Kills torchrun in mid-run and waits until its workers have ended: the last step before, and after that."""
    children = list(workers(torchrun.pid).values())
    before = steps_done(run)[1]
    torchrun.kill()
    torchrun.wait()
    while any(is_alive(pid) for pid in children):
        time.sleep(0.2)
    return {"workers": len(children), "step": before, "last_step": steps_done(run)[1]}


def is_alive(pid: int) -> bool:
    """Whether a process still runs; one that has ended may be listed until its parent looks."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def circle(folder: Path, n_faults: int, seed: int) -> dict[str, object]:
    """One process, two, one, two: all of each are killed at a random moment, only the last may end."""
    prepared(folder, steps=200)
    say("the run that nothing disturbs ...")
    start(command(folder, "whole")).wait()
    draw, run, killed_at = random.Random(seed), folder / "run", []
    for n in (1, 2, 1):
        torchrun = start(command(folder, "run", "--standalone", f"--nproc-per-node={n}"))
        aim = steps_done(run)[1] + draw.randrange(15, 50)
        waited(lambda aim=aim: steps_done(run)[1] >= aim, torchrun)
        children = workers(torchrun.pid).values()
        for pid in (torchrun.pid, *children):
            os.kill(pid, signal.SIGKILL)
        torchrun.wait()
        killed_at.append({"processes": n, "killed": len(children) + 1, "step": steps_done(run)[1]})
        say(killed_at[-1])
    code = start(command(folder, "run", "--standalone", "--nproc-per-node=2")).wait()
    same = end_of(folder, "whole") == end_of(folder, "run")
    same_losses = losses(folder / "whole") == losses(run)
    return {"killed": killed_at, "exit_code": code, "identical": same, "same_losses": same_losses}


def losses(run: Path) -> list[tuple[object, ...]]:
    """Step, loss and gradient norm of every update."""
    rows = (row for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "train")
    return [(row["step"], row["loss"], row["grad_norm"]) for row in rows]


def recovery(faults: list[dict[str, object]], name: str) -> dict[str, float | int]:
    """Seconds from a signal to a step beyond it."""
    found = sorted(float(str(fault["seconds"])) for fault in faults if fault["signal"] == name)
    if not found:
        return {"n": 0}
    return {"n": len(found), "p50": statistics.median(found), "p95": found[int(0.95 * (len(found) - 1))]}


def advancing(run: Path, begun: int, step: int) -> bool:
    """Whether the run is still the one from before the fault."""
    now_begun, now_step = steps_done(run)
    return now_begun == begun and now_step >= step


def network(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def two_hosts() -> None:
    """Two network namespaces with one cable between them."""
    for name in HOSTS:
        network("netns", "add", name)
        network("-n", name, "link", "set", "lo", "up")
    a, b = HOSTS
    network("link", "add", "cable-a", "netns", a, "type", "veth", "peer", "name", "cable-b", "netns", b)
    for name, card in zip(HOSTS, ("cable-a", "cable-b"), strict=True):
        network("-n", name, "address", "add", f"{HOSTS[name]}/24", "dev", card)
        network("-n", name, "link", "set", card, "up")


def on_both(folder: Path) -> list[subprocess.Popen[bytes]]:
    """Starts a torchrun on each host."""
    a = next(iter(HOSTS))
    started = []
    for rank, (name, card) in enumerate(zip(HOSTS, ("cable-a", "cable-b"), strict=True)):
        place = ["--nnodes=2", f"--node-rank={rank}", "--nproc-per-node=1", f"--master-addr={HOSTS[a]}"]
        arguments = command(folder, "run", *place, "--master-port=29511")
        started.append(start(["ip", "netns", "exec", name, *arguments], GLOO_SOCKET_IFNAME=card))
    return started


def hosts(folder: Path, n_faults: int, seed: int) -> dict[str, object]:
    """Pulls the cable in mid-run: both hosts must end by themselves, and a new start must go on to the same bits."""
    prepared(folder, steps=100)
    start(command(folder, "whole")).wait()
    two_hosts()
    try:
        both = on_both(folder)
        waited(lambda: steps_done(folder / "run")[1] >= 30, both[0])
        network("-n", "many-a", "link", "set", "cable-a", "down")
        at, seconds = time.monotonic(), []
        for process in both:
            process.wait(PATIENCE + 120)
            seconds.append(round(time.monotonic() - at, 2))
        say("both hosts have ended after", seconds)
        network("-n", "many-a", "link", "set", "cable-a", "up")
        codes = [process.wait(600) for process in on_both(folder)]
    finally:
        for name in HOSTS:
            network("netns", "delete", name)
    same = end_of(folder, "whole") == end_of(folder, "run")
    return {"ended_after": seconds, "patience": PATIENCE, "second_exit_codes": codes, "identical": same}


def tree(folder: Path, n_faults: int, seed: int) -> dict[str, object]:
    """Seconds of a gradient at 8 micro-batches in 4 parts and in 1, alternating."""
    torch.set_num_threads(1)
    shape = replace(ARCHITECTURE, d_model=256, n_layers=4, n_heads=4, vocab_size=4096, seq_len=256)
    model = initialize(GPT(shape, mup(shape)), torch.Generator().manual_seed(0))
    ids = torch.randint(shape.vocab_size, (8, shape.seq_len + 1), generator=torch.Generator().manual_seed(1))
    batch, spent = Batch(ids[:, :-1], ids[:, 1:]), {1: [], 4: []}
    for _ in range(2 + 15):
        for parts, times in spent.items():
            model.zero_grad(set_to_none=True)
            begun = time.perf_counter()
            gradients(model, batch, Execution("bfloat16", 1, parts=parts), World())
            times.append(time.perf_counter() - begun)
    medians = {parts: statistics.median(times[2:]) for parts, times in spent.items()}
    ratio = statistics.median(four / one for one, four in zip(spent[1][2:], spent[4][2:], strict=True))
    return {"seconds": medians, "tree_over_plain": ratio, "parameters": shape.n_parameters}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    campaigns = {"ranks": ranks, "circle": circle, "hosts": hosts, "tree": tree}
    parser.add_argument("campaign", choices=campaigns)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = campaigns[given.campaign](Path(folder), given.faults, given.seed)
    about = {
        "campaign": given.campaign,
        "date": date.today().isoformat(),
        "seed": given.seed,
        "torch": torch.__version__,
    }
    machine = {"machine": platform.machine(), "cores": os.cpu_count()}
    print(json.dumps({**about, **machine, **found}, indent=2))


if __name__ == "__main__":
    main()
