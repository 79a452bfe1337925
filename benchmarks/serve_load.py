"""A server under 1 to 64 clients that stream, at the 111M shape on a CPU; how soon it answers after its start.

    python benchmarks/serve_load.py --out benchmarks/results/DATE-serve-load.json [--llama-server PATH]
        [--vllm PYTHON --preload FILE...] [--transformers-serve PYTHON]

Random weights; every client sends a prompt of its own, PROMPT words of a token each, in another order than any other
request's, and reads NEW greedy tokens as events, all at once. Words, because `transformers serve` takes only text.
Total: tokens of all clients over the time until the last has its last. First: seconds to the first token. Fairness:
the slowest client's time over the fastest's. Also the seconds from the start of a server to its first answer, the
median of several. Servers are started in turns, round by round, each alone. Beside them a static batch of transformers,
without any server: everybody waits for the same prefill, and nobody may come later.
llama.cpp's server needs its binary, vLLM (its build for CPUs) and `transformers serve` an interpreter that has them;
without one they are named as missing. --preload: libraries for vLLM alone, such as an allocator. Also: the time of
`generate` as a command up to its first token, and what it costs a lone request that a pass of torch has at least as
many rows as give a row the same bits among any others.
"""

import argparse
import asyncio
import functools
import itertools
import json
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from servers import SERVERS
from sides.ours import random_model

PROMPT, NEW = 128, 64
CLIENTS = (1, 4, 16, 64)
GGUF = ("bf16", "q8_0", "q4_0")
SIDES = (
    *("ours auto", "ours bfloat16", "ours int8", "ours int4"),
    *(f"llama.cpp {kind}" for kind in GGUF),
    *("vllm bfloat16", "transformers batch", "transformers-serve batching", "transformers-serve bfloat16"),
)
START_SECONDS, SHORT_SECONDS = 300, 10


@functools.cache
def words():
    """Tokens that are a word with the space before it: such words next to each other are these tokens again."""
    from cerebras_gpt.text.tokenizer import gpt2_tokenizer

    tokenizer = gpt2_tokenizer()
    texts = {n: tokenizer.decode([n]) for n in range(50000)}
    return [(n, text) for n, text in texts.items() if re.fullmatch(" [A-Za-z]{2,}", text)]


def prompt_of(seed, as_text):
    drawn = random.Random(seed).choices(words(), k=PROMPT)
    return "".join(text for _, text in drawn) if as_text else [n for n, _ in drawn]


def prepare(folder):
    """A run for us, a folder for transformers, a file for llama.cpp: the same weights."""
    from cerebras_gpt import checkpoint
    from cerebras_gpt.interop import gguf, hf_folder
    from cerebras_gpt.interop.fold import folded
    from cerebras_gpt.text.tokenizer import gpt2_tokenizer

    model, tokenizer = random_model(), gpt2_tokenizer()
    texts = {"model.json": checkpoint.model_json(model), "tokenizer.json": tokenizer.to_json()}
    checkpoint.save(folder / "model", 0, texts, {"model.safetensors": dict(model.named_parameters())})
    (folder / "hf").mkdir()
    hf_folder.write_hf_folder(folder / "hf", folded(model), tokenizer)
    for kind in GGUF:
        gguf.write_gguf(folder / f"{kind}.gguf", folded(model), tokenizer, gguf.kind_named(kind), "random")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


async def one(port, model, prompt, n_new=NEW):
    """Seconds to the first event and to the last, and tokens, of one client."""
    body = {"model": model, "prompt": prompt, "max_tokens": n_new, "temperature": 0, "stream": True}
    data = json.dumps({**body, "stream_options": {"include_usage": True}}).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n"
    began, first, made = time.perf_counter(), None, 0
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    async for line in reader:
        if not line.startswith(b"data: {"):
            continue
        first = first or time.perf_counter() - began
        told = json.loads(line[6:])
        assert "error" not in told, told
        made = (told.get("usage") or {}).get("completion_tokens", made)
    writer.close()
    assert first is not None and made > 0
    return first, time.perf_counter() - began, made


async def load(port, model, prompts):
    n, began = len(prompts), time.perf_counter()
    found = await asyncio.gather(*(one(port, model, prompt) for prompt in prompts))
    seconds = time.perf_counter() - began
    firsts, lasts = sorted(f for f, _, _ in found), [last for _, last, _ in found]
    return {
        "tokens per second": sum(made for _, _, made in found) / seconds,
        "first token, median": statistics.median(firsts),
        "first token, 95 %": firsts[min(n - 1, int(0.95 * n))],
        "slowest / fastest": max(lasts) / min(lasts),
    }


@contextmanager
def running(server, port, prompt, environment):
    """The server, from its start on; gives the seconds until it has answered once."""
    began = time.perf_counter()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(server.command, **quiet, env={**environment, **server.settings}) as process:
        try:
            while True:
                try:
                    asyncio.run(one(port, server.model, prompt, 1))
                    break
                except (OSError, AssertionError):
                    assert process.poll() is None and time.perf_counter() - began < START_SECONDS, server.command
                    time.sleep(0.02)
            yield time.perf_counter() - began
        finally:
            process.terminate()


def served(server, port, clients, environment, n_starts):
    """All loads of a server, and the median of its starts if they are short."""
    fresh = (prompt_of(seed, server.takes_text) for seed in itertools.count())
    warm, prompts = list(itertools.islice(fresh, 2)), {n: list(itertools.islice(fresh, n)) for n in clients}
    with running(server, port, warm[0], environment) as first:
        asyncio.run(one(port, server.model, warm[1]))
        loads = {str(n): asyncio.run(load(port, server.model, prompts[n])) for n in clients}
    starts = [first]
    while len(starts) < n_starts and first < SHORT_SECONDS:
        with running(server, port, warm[0], environment) as started:
            starts.append(started)
    return {"seconds to the first answer": statistics.median(starts), **loads}


def static_batch(folder, clients, threads):
    """transformers without a server: all rows together, prefill and then every token."""
    told = {}
    command = [sys.executable, __file__, "--batch", *map(str, clients), "--folder", str(folder), "--out", os.devnull]
    made = subprocess.run(command, capture_output=True, text=True, check=True, env=environment_of(threads))
    for n, (first, tokens, seconds) in json.loads(made.stdout.splitlines()[-1]).items():
        told[n] = {"tokens per second": (tokens + int(n)) / (first + seconds), "first token, median": first}
    return told


def batches(folder, clients):
    from sides import hf

    run = hf.side("float32", folder)
    run(1, 8, 4)
    print(json.dumps({n: run(n, PROMPT, NEW) for n in clients}))


def environment_of(threads):
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}


def first_token(folder, weights, environment):
    """Seconds from the start of the command to the first text after the prompt."""
    options = ["--prompt", "one", "--max-tokens", "2", "--temperature", "0", "--weights", weights]
    command = [sys.executable, "-m", "cerebras_gpt", "generate", str(folder / "model"), *options]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        got = b""
        while len(got) <= len("one"):
            piece = process.stdout.read(1)
            assert piece, "it ended before a token came"
            got += piece
        return time.perf_counter() - began


def rows_price():
    """Milliseconds of a lone request's pass: padded to the rows that keep its bits, and one row alone."""
    import torch

    from cerebras_gpt.generate.network import Network

    network = Network(random_model())
    cache, rows = network.slots(1, 300), network.decode_rows
    found = {"padded": [], "one row": []}
    for _ in range(15):
        for name, sizes in (("padded", rows), ("one row", (1,))):
            network.decode_rows = sizes
            began = time.perf_counter()
            with torch.inference_mode():
                network.follow([5], [0], [200], cache)
            found[name].append((time.perf_counter() - began) * 1000)
    return {"rows": rows, **{name: round(statistics.median(x), 2) for name, x in found.items()}}


def middle(rounds):
    """The median of every figure over the rounds."""
    if isinstance(rounds[0], dict):
        return {key: middle([one[key] for one in rounds]) for key in rounds[0]}
    return round(statistics.median(rounds), 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--starts", type=int, default=5, help="of each server that starts in less than 10 s")
    parser.add_argument("--clients", type=int, nargs="*", default=CLIENTS)
    parser.add_argument("--sides", nargs="*", default=SIDES)
    parser.add_argument("--llama-server", default=shutil.which("llama-server"))
    parser.add_argument("--vllm", metavar="PYTHON")
    parser.add_argument("--preload", type=Path, nargs="*", default=(), metavar="FILE")
    parser.add_argument("--transformers-serve", metavar="PYTHON")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--batch", type=int, nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    if asked.batch:
        return batches(asked.folder, asked.batch)
    folder = asked.folder or Path(tempfile.mkdtemp())
    folder.mkdir(exist_ok=True)
    if not (folder / "hf").exists():
        prepare(folder)
    measure(asked, folder)
    return None


def measure(asked, folder):
    environment, measured, colds = environment_of(asked.threads), {}, {}
    programs = {
        "ours": sys.executable,
        "llama.cpp": asked.llama_server,
        "vllm": asked.vllm,
        "transformers-serve": asked.transformers_serve,
    }
    result = {**circumstances(asked), "milliseconds of a lone row": rows_price()}
    for turn, side in itertools.product(range(asked.rounds), asked.sides):
        name, kind = side.split()
        if (name, kind) == ("transformers", "batch"):
            told = static_batch(folder, asked.clients, asked.threads)
        elif (needed := programs[name]) is None:
            measured[side] = "missing: nobody said where it is"
            continue
        else:
            port = free_port()
            server = SERVERS[name](needed, kind, folder, port, asked)
            told = served(server, port, asked.clients, environment, asked.starts)
        if name == "ours":
            colds.setdefault(kind, []).append(first_token(folder, kind, environment))
        measured.setdefault(side, []).append(told)
        print(turn, side, json.dumps(middle([told])), flush=True)
        result["servers"] = {side: told if isinstance(told, str) else middle(told) for side, told in measured.items()}
        result["generate, seconds to the first token"] = {kind: middle(x) for kind, x in colds.items()}
        asked.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")  # what is measured stays if the rest fails


def circumstances(asked):
    import torch

    from cerebras_gpt import __version__
    from cerebras_gpt.process import processor

    return {
        "date": time.strftime("%Y-%m-%d"),
        "cerebras_gpt": __version__,
        "torch": torch.__version__,
        "machine": f"{asked.threads} threads, {processor()}",
        "rounds": asked.rounds,
        "load_average": os.getloadavg(),
    }


if __name__ == "__main__":
    main()
