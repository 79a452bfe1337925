"""Decoding at the 111M shape on a CPU, ours and others taking turns in one run: one sequence, eight, and prompts.

    python benchmarks/decode.py --rounds 5 --out benchmarks/results/DATE-decode.json

Random weights, the same for all (through our own export to GGUF and Hugging Face folders). Each side lives in a
process of its own and waits while another is measured. Decoding: greedy, NEW tokens after a prompt of PROMPT, the
prompt's time left out. Prompt: LONG tokens until the first new one. Share: bytes of the weights times tokens per
second of one sequence, over the bandwidth that a plain read of torch reaches in the same round. Ours goes through
the engine that serves; llama.cpp through its C interface, without sampling but for the largest score. llama.cpp
computes GELU by tanh, the others exactly. Extras: llama-cpp-python, ctranslate2, transformers.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROMPT, NEW, LONG = 128, 64, 1024
SHAPE = {"d_model": 768, "n_layers": 10, "n_heads": 12}
OURS = ("float32", "bfloat16", "int8", "int4")
GGUF = ("f32", "bf16", "q8_0", "q4_0")
SIDES = (
    *(f"ours {kind}" for kind in OURS),
    *(f"llama.cpp {kind}" for kind in GGUF),
    "ctranslate2 int8",
    "transformers float32",
    "transformers bfloat16",
)
PEERS = {"float32": ("f32", "float32"), "bfloat16": ("bf16", "bfloat16"), "int8": ("q8_0", "int8"), "int4": ("q4_0",)}
"""What each of ours is compared with."""
MEASURES = ("decode 1", "decode 8", "prompt")


def random_model():
    import torch

    from cerebras_gpt.model.architecture import Architecture
    from cerebras_gpt.model.gpt import GPT
    from cerebras_gpt.model.parametrization import Parametrization

    architecture = Architecture(**SHAPE)
    model = GPT(architecture, Parametrization(architecture.n_layers, architecture.d_head)).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.normal_(0, 0.02, generator=generator)
    return model


def ids_of(n, seed):
    return [(seed * 7919 + i * 104729) % 50000 for i in range(n)]


def ours(kind, _folder):
    from cerebras_gpt.generate.engine import Engine
    from cerebras_gpt.generate.precision import prepared
    from cerebras_gpt.generate.request import Request
    from cerebras_gpt.generate.sampling import Sampling

    network = prepared(random_model(), kind).make_network()
    counter = iter(range(10**9))

    def run(n, n_prompt, n_new):
        engine, greedy = Engine(network, n, n_prompt + n_new), Sampling(temperature=0)
        began = time.perf_counter()
        going = [engine.submit(Request(tuple(ids_of(n_prompt, next(counter))), n_new, greedy)) for _ in range(n)]
        while any(not one.n_new for one in going):
            engine.step()
        first, before = time.perf_counter(), sum(one.n_new for one in going)
        while not engine.is_idle:
            engine.step()
        return first - began, sum(one.n_new for one in going) - before, time.perf_counter() - first

    return run


def llama(kind, folder):
    import ctypes

    import llama_cpp as lib
    import numpy as np

    lib.llama_backend_init()
    silence = lib.llama_log_callback(lambda *_: None)
    lib.llama_log_set(silence, ctypes.c_void_p(0))
    model = lib.llama_model_load_from_file(str(folder / f"{kind}.gguf").encode(), lib.llama_model_default_params())
    settings = lib.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_ubatch, settings.n_seq_max = 8 * 1280, 2048, 512, 8  # 1,280 a sequence
    settings.n_threads = settings.n_threads_batch = int(os.environ["OMP_NUM_THREADS"])
    context = lib.llama_init_from_model(model, settings)
    batch, V = lib.llama_batch_init(2048, 0, 1), 50257

    def feed(tokens):
        """(id, position, sequence, whether its scores are wanted) of each; the likeliest ids where wanted."""
        batch.n_tokens = len(tokens)
        for i, (token, position, sequence, wanted) in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        assert lib.llama_decode(context, batch) == 0
        rows = [i for i, token in enumerate(tokens) if token[3]]
        return [int(np.ctypeslib.as_array(lib.llama_get_logits_ith(context, i), (V,)).argmax()) for i in rows]

    def run(n, n_prompt, n_new):
        lib.llama_memory_clear(lib.llama_get_memory(context), True)
        began, last = time.perf_counter(), []
        for sequence in range(n):
            prompt = ids_of(n_prompt, sequence)
            last += feed([(token, at, sequence, at == n_prompt - 1) for at, token in enumerate(prompt)])
        first = time.perf_counter()
        for step in range(n_new - 1):
            last = feed([(token, n_prompt + step, sequence, True) for sequence, token in enumerate(last)])
        return first - began, n * (n_new - 1), time.perf_counter() - first

    run.kept = silence
    return run


def transformers(kind, folder):
    import torch
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(folder / "hf", dtype=getattr(torch, kind)).eval()

    @torch.inference_mode()
    def run(n, n_prompt, n_new):
        began = time.perf_counter()
        out = model(torch.tensor([ids_of(n_prompt, i) for i in range(n)]), use_cache=True, logits_to_keep=1)
        first = time.perf_counter()
        for _ in range(n_new - 1):
            last = out.logits[:, -1:].argmax(-1)
            out = model(last, past_key_values=out.past_key_values, use_cache=True, logits_to_keep=1)
        return first - began, n * (n_new - 1), time.perf_counter() - first

    return run


def ctranslate2(kind, folder):
    import ctranslate2

    threads = int(os.environ["OMP_NUM_THREADS"])
    generator = ctranslate2.Generator(str(folder / "ct2"), compute_type=kind, intra_threads=threads)
    words = json.loads((folder / "ct2" / "vocabulary.json").read_text("utf-8"))

    def seconds(n, n_prompt, n_new):
        prompts = [[words[i] for i in ids_of(n_prompt, row)] for row in range(n)]
        began = time.perf_counter()
        generator.generate_batch(prompts, max_length=n_new, min_length=n_new, include_prompt_in_result=False)
        return time.perf_counter() - began

    def run(n, n_prompt, n_new):
        first = seconds(n, n_prompt, 1)  # it tells nothing in between, so the prompt's time is measured apart
        return first, n * (n_new - 1), max(1e-9, seconds(n, n_prompt, n_new) - first) if n_new > 1 else 1.0

    return run


def work(side, folder):
    """A side's process: one measure for each line that comes, one number for each answer."""
    name, kind = side.split()
    run = {"ours": ours, "llama.cpp": llama, "transformers": transformers, "ctranslate2": ctranslate2}[name](
        kind, folder
    )
    run(1, 8, 4)
    print("ready", flush=True)
    for line in sys.stdin:
        what, _, n = line.strip().partition(" ")
        first, made, seconds = run(int(n or 1), LONG if what == "prompt" else PROMPT, 1 if what == "prompt" else NEW)
        print(LONG / first if what == "prompt" else made / seconds, flush=True)


def prepare(folder):
    """The same model for everybody."""
    from cerebras_gpt.interop import gguf, hf_folder
    from cerebras_gpt.interop.fold import folded
    from cerebras_gpt.text.tokenizer import gpt2_tokenizer

    model, tokenizer = folded(random_model()), gpt2_tokenizer()
    for kind in GGUF:
        gguf.write_gguf(folder / f"{kind}.gguf", model, tokenizer, gguf.kind_named(kind), "random")
    (folder / "hf").mkdir()
    hf_folder.write_hf_folder(folder / "hf", model, tokenizer)
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(folder / "hf")).convert(str(folder / "ct2"))


def bandwidth():
    """Bytes per second of a plain read of 512 MiB, the best of three."""
    import torch

    numbers, best = torch.ones(2**26, dtype=torch.int64), 0.0
    for _ in range(3):
        began = time.perf_counter()
        numbers.sum()
        best = max(best, numbers.numel() * 8 / (time.perf_counter() - began))
    return best


def ask(process, line):
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def start(side, folder, threads):
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if not side.startswith("ctranslate2"):  # its threads inherit the mask of one core
        environment |= {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"} if threads > 1 else {}
    command = [sys.executable, __file__, "--work", side, "--folder", str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline().strip() == "ready", side
    return process


def summary(measured, reads):
    from cerebras_gpt.generate.weights import stored_bytes

    C, L = SHAPE["d_model"], SHAPE["n_layers"]
    medians = {side: {what: statistics.median(x) for what, x in by.items()} for side, by in measured.items()}
    for kind in OURS:
        mine = medians.get(f"ours {kind}")
        if mine is None:
            continue
        peers = [s for s in medians if not s.startswith("ours") and s.split()[1] in PEERS[kind]]
        times = zip(measured[f"ours {kind}"]["decode 1"], reads, strict=True)
        mine["share_of_bandwidth"] = statistics.median(
            x * stored_bytes(12 * L * C * C, 50257 * C, kind) / read for x, read in times
        )
        for what in MEASURES:
            ratios = {
                peer: statistics.median(
                    a / b for a, b in zip(measured[f"ours {kind}"][what], measured[peer][what], strict=True)
                )
                for peer in peers
            }
            mine[f"{what}, times the best peer"] = min(ratios.values(), default=None)
    return medians


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--sides", nargs="*", default=SIDES, metavar="SIDE", help="for example 'ours int8'")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="where the exported models are, or are to be")
    asked = parser.parse_args()
    if asked.work:
        return work(asked.work, asked.folder)
    import torch

    from cerebras_gpt import __version__
    from cerebras_gpt.process import processor

    torch.set_num_threads(asked.threads)
    folder = asked.folder or Path(tempfile.mkdtemp())
    folder.mkdir(exist_ok=True)
    if not (folder / "ct2").exists():
        prepare(folder)
    processes = {side: start(side, folder, asked.threads) for side in asked.sides}
    measured, reads = {side: {what: [] for what in MEASURES} for side in processes}, []
    for turn in range(asked.rounds):
        reads.append(bandwidth())
        for what in MEASURES:
            for side, process in processes.items():
                measured[side][what].append(ask(process, what))
        print(f"round {turn + 1}: {reads[-1] / 1e9:.1f} GB/s", flush=True)
    for process in processes.values():
        process.stdin.close()
        process.wait()
    medians = summary(measured, reads)
    for side, figures in medians.items():
        print(f"{side:22}", "  ".join(f"{what} {x:.4g}" for what, x in figures.items() if x is not None))
    result = {
        "cerebras_gpt": __version__,
        "torch": torch.__version__,
        "machine": f"{asked.threads} threads, {processor()}",
        "rounds": asked.rounds,
        "gigabytes_per_second": statistics.median(reads) / 1e9,
        "tokens_per_second": medians,
    }
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return None


if __name__ == "__main__":
    main()
