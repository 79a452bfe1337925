"""Decoding at the 111M shape on a CPU, ours and others taking turns in one run: one sequence, eight, and prompts.

    python benchmarks/decode.py --rounds 5 --out benchmarks/results/DATE-decode.json [--openvino PYTHON]

Random weights, the same for all (through our own export to GGUF and Hugging Face folders). Each side lives in a
process of its own, from `benchmarks/sides`, and waits while another is measured. Decoding: greedy, NEW tokens after a
prompt of PROMPT, the prompt's time left out. Prompt: LONG tokens until the first new one. Share: bytes of the weights
times tokens per second of one sequence, over the bandwidth that a plain read of torch reaches in the same round.
llama.cpp computes GELU by tanh, the others exactly. Extras: llama-cpp-python, ctranslate2, transformers;
--openvino names an interpreter that has openvino-genai, and optimum-intel and nncf for the export.
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

from sides.ours import SHAPE, random_model

OURS = ("float32", "bfloat16", "int8", "int4")
GGUF = ("f32", "bf16", "q8_0", "q4_0")
SIDES = (
    *(f"ours {kind}" for kind in OURS),
    *(f"llama.cpp {kind}" for kind in GGUF),
    *(f"openvino {kind}" for kind in OURS),
    "ctranslate2 int8",
    "transformers float32",
    "transformers bfloat16",
)
PEERS = {
    "float32": ("f32", "float32"),
    "bfloat16": ("bf16", "bfloat16"),
    "int8": ("q8_0", "int8"),
    "int4": ("q4_0", "int4"),
}
"""What each of ours is compared with."""
MODULES = {"ours": "ours", "llama.cpp": "llama", "openvino": "ov", "ctranslate2": "ct2", "transformers": "hf"}
BOUND = ("ours", "llama.cpp", "transformers")
"""Whose threads are bound to cores; those of the others would inherit the mask of one core."""
MEASURES = ("decode 1", "decode 8", "prompt")


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


def start(side, folder, threads, openvino):
    name, kind = side.split()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(Path(__file__).parent)}
    if name in BOUND and threads > 1:
        environment |= {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"}
    if name != "openvino" and (places := os.environ.get("PYTHONPATH")):
        environment["PYTHONPATH"] += os.pathsep + places
    python = openvino if name == "openvino" else sys.executable
    command = [python, "-m", "sides", MODULES[name], kind, str(folder)]
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
    parser.add_argument("--openvino", metavar="PYTHON")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--folder", type=Path, help="where the exported models are, or are to be")
    asked = parser.parse_args()
    import torch

    from cerebras_gpt import __version__
    from cerebras_gpt.process import processor

    torch.set_num_threads(asked.threads)
    folder = asked.folder or Path(tempfile.mkdtemp())
    folder.mkdir(exist_ok=True)
    if not (folder / "ct2").exists():
        prepare(folder)
    if asked.openvino and not (folder / "ov-int4").exists():
        place = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        subprocess.run([asked.openvino, "-m", "sides.ov", str(folder)], check=True, env=place)
    sides = [side for side in asked.sides if asked.openvino or not side.startswith("openvino")]
    processes = {side: start(side, folder, asked.threads, asked.openvino) for side in sides}
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


if __name__ == "__main__":
    main()
