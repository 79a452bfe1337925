"""One run in other programs: transformers, CTranslate2, llama.cpp with each type of GGUF; and the fold at real widths.

    python benchmarks/interop.py runs/quickstart --out benchmarks/results/DATE-interop.json

Needs the packages transformers, ctranslate2, gguf and llama-cpp-python. All programs read the same windows of held-out
text (--data, the run's own pack by default), start from the same prompts out of it, and compute on one thread.
"""

import argparse
import json
import math
import tempfile
from dataclasses import replace
from datetime import date
from importlib import metadata
from pathlib import Path

import ctranslate2
import numpy as np
import torch
from llama_cpp import Llama
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from cerebras_gpt.data.shards import Shards
from cerebras_gpt.doctor import environment
from cerebras_gpt.exporting import PROBE, Ours, carrying, export_model
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.interop.fold import folded
from cerebras_gpt.interop.gguf import KINDS, read_gguf_weights, write_gguf
from cerebras_gpt.interop.gpt2 import gpt2_config, gpt2_tensors
from cerebras_gpt.interop.readers import Transformers
from cerebras_gpt.model.gpt import GPT, initialize, roles
from cerebras_gpt.plan.families import mup
from cerebras_gpt.plan.plan import published_plan

MACHINE = ("processor", "cores", "instructions", "python", "torch", "numpy", "tokenizers")
PROGRAMS = ("transformers", "ctranslate2", "llama-cpp-python", "gguf")
PROMPTS, PROMPT_TOKENS, GREEDY_TOKENS = 4, 16, 256
F32 = 0  # of ggml
FOLDS = {"111M": 3.0, "256M": 4.25, "2.7B": 10.0}


class Translate:
    """CTranslate2, converted from the exported folder and computing in float32."""

    def __init__(self, folder, work, end_of_text):
        ctranslate2.converters.TransformersConverter(str(folder)).convert(str(work))
        self.generator = ctranslate2.Generator(str(work), compute_type="float32", intra_threads=1, inter_threads=1)
        vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
        self.tokens = list(vocabulary)
        self.end_of_text = end_of_text

    def logits(self, ids):
        return torch.from_numpy(np.array(self.generator.forward_batch(ids.tolist())))

    def greedy(self, prompt, n_tokens):
        words = [[self.tokens[index] for index in prompt]]
        (result,) = self.generator.generate_batch(
            words, max_length=n_tokens, sampling_topk=1, include_prompt_in_result=False, return_end_token=True
        )
        return result.sequences_ids[0]


class Cpp:
    """llama.cpp with a GGUF file, as shipped but for what is given."""

    def __init__(self, path, seq_len, **settings):
        self.llama = Llama(str(path), n_ctx=seq_len, logits_all=True, verbose=False, n_threads=1, **settings)

    def logits(self, ids):
        self.llama.reset()
        self.llama.eval(ids[0].tolist())
        return torch.from_numpy(np.array(self.llama.scores[: ids.shape[1]]))[None]

    def greedy(self, prompt, n_tokens):
        self.llama.reset()
        steps = self.llama.generate(list(prompt), temp=0.0, repeat_penalty=1.0)
        return [token for token, _ in zip(steps, range(n_tokens), strict=False)]


def in_tanh(model):
    other = GPT(replace(model.architecture, activation="gelu_new"), model.parametrization)
    other.load_state_dict(model.state_dict())
    return other.eval()


def scores(program, windows, reference):
    """Nats over all windows, the largest differences from our logits, and how often the top token agrees."""
    nats, absolute, scale, agreed = 0.0, 0.0, 0.0, 0
    for ids, expected in zip(windows, reference, strict=True):
        logits = program.logits(ids[:, :-1]).float()
        nats += F.cross_entropy(logits[0], ids[0, 1:], reduction="sum").item()
        absolute = max(absolute, (logits - expected).abs().max().item())
        scale = max(scale, expected.abs().max().item())
        agreed += (logits.argmax(-1) == expected.argmax(-1)).sum().item()
    n_tokens = sum(ids.shape[1] - 1 for ids in windows)
    return nats, absolute, absolute / scale, agreed / n_tokens


def measure(program, material):
    """What one program makes of the windows and of the prompts."""
    nats, absolute, relative, agreement = scores(program, material["windows"], material["reference"])
    same = []
    for prompt, text in zip(material["prompts"], material["greedy"], strict=True):
        pairs = zip(text, program.greedy(prompt, len(text)), strict=False)
        same.append(next((n for n, (ours, theirs) in enumerate(pairs) if ours != theirs), len(text)))
    return {
        "bits_per_byte": nats / math.log(2) / material["n_bytes"],
        "nats_per_token": nats / material["n_tokens"],
        "perplexity": math.exp(nats / material["n_tokens"]),
        "largest_difference": absolute,
        "relative_to_largest_logit": relative,
        "same_top_token": agreement,
        "greedy_tokens_same": same,
    }


def prepared(lm, data, n_windows):
    """Windows of held-out text, what the model computes on them, and what it says after some prompts."""
    T, end = lm.model.architecture.seq_len, lm.tokenizer.end_of_text
    ids = lm.tokenizer.encode(Shards.open(data, "val", verify=False).text(10**6).decode("utf-8", "ignore"))
    windows = [torch.tensor([[end, *ids[i : i + T]]]) for i in range(0, n_windows * T, T)]
    ours = Ours(lm.model, end, "ours")
    stride = len(ids) // PROMPTS
    prompts = [ids[i : i + PROMPT_TOKENS] for i in range(0, PROMPTS * stride, stride)]
    return {
        "windows": windows,
        "reference": [ours.logits(window[:, :-1]) for window in windows],
        "n_tokens": n_windows * T,
        "n_bytes": len(lm.tokenizer.decode_bytes(ids[: n_windows * T])),
        "prompts": prompts,
        "greedy": [ours.greedy(prompt, min(GREEDY_TOKENS, T - PROMPT_TOKENS)) for prompt in prompts],
    }


def programs(lm, run, work):
    """Every program by its name, built when it is its turn."""
    plain, end = folded(lm.model), lm.tokenizer.end_of_text
    seq_len, weights = plain.architecture.seq_len, dict(plain.named_parameters())
    folder = work / "hf"
    proof = export_model(run, "hf", folder)
    print("\n".join(proof.lines()[1:]), flush=True)
    yield "ours", Ours(lm.model, end, ""), None
    yield "ours, folded", Ours(plain, end, ""), None
    yield "transformers", Transformers(folder), folder / "model.safetensors"
    yield "CTranslate2", Translate(folder, work / "ct2", end), work / "ct2" / "model.bin"
    yield "ours with the tanh GELU", Ours(in_tanh(lm.model), end, ""), None
    for kind in KINDS:
        path = work / f"{kind}.gguf"
        export_model(run, "gguf", path, kind)
        back = carrying(plain, read_gguf_weights(path, weights))
        yield f"ours from {kind} GGUF, tanh GELU", Ours(in_tanh(back), end, ""), path
        yield f"llama.cpp {kind}", Cpp(path, seq_len), path
    yield "llama.cpp f32, cache in f32", Cpp(work / "f32.gguf", seq_len, type_k=F32, type_v=F32), work / "f32.gguf"
    small = work / "q4_0-all.gguf"
    write_gguf(small, plain, lm.tokenizer, KINDS["q4_0"]._replace(tables="Q4_0"), "small")
    yield "llama.cpp q4_0, the tables too", Cpp(small, seq_len), small


def same_tokens(lm, work):
    """Whether llama.cpp cuts a difficult text as we do, given the tokenizer inside the file."""
    llama = Llama(str(work / "f32.gguf"), vocab_only=True, verbose=False)
    return llama.tokenize(PROBE.encode(), add_bos=False, special=False) == lm.tokenizer.encode(PROBE)


@torch.no_grad()
def fold(name, m):
    """A muP model of a published width and two layers with random weights, against its fold and transformers."""
    shape = replace(published_plan(name).architecture, n_layers=2)
    generator = torch.Generator().manual_seed(0)
    model = initialize(GPT(shape, mup(shape)), generator).eval()
    assert model.parametrization.width_multiplier == m
    for _, parameter, role in roles(model):
        if role in ("bias", "norm"):
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    plain = folded(model)
    theirs = GPT2LMHeadModel(GPT2Config(**gpt2_config(shape, 50256)))
    theirs.load_state_dict(gpt2_tensors(dict(plain.named_parameters())), strict=False)
    theirs.tie_weights()
    ids = torch.randint(shape.vocab_size, (1, 256), generator=generator)
    ours = model(ids)
    scale = ours.abs().max()
    return {
        "width": shape.d_model,
        "m": m,
        "largest_logit": scale.item(),
        "folded": ((plain(ids) - ours).abs().max() / scale).item(),
        "transformers": ((theirs.eval()(ids).logits - ours).abs().max() / scale).item(),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--windows", type=int, default=60)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    lm = LM.load(given.run)
    shape = lm.model.architecture
    found = {
        "date": date.today().isoformat(),
        "command": f"python benchmarks/interop.py RUN --windows {given.windows}",
        "machine": {key: value for key, value in environment().items() if key in MACHINE},
        "programs": {name: metadata.version(name) for name in PROGRAMS},
        "model": {"n_parameters": shape.n_parameters, "shape": [shape.d_model, shape.n_layers, shape.vocab_size]},
    }
    material = prepared(lm, given.data or given.run / "data", given.windows)
    found["text"] = {key: material[key] for key in ("n_tokens", "n_bytes")}
    found["greedy_tokens"] = [len(text) for text in material["greedy"]]
    found["results"] = {}
    with tempfile.TemporaryDirectory() as work:
        for name, program, path in programs(lm, given.run, Path(work)):
            result = measure(program, material)
            found["results"][name] = result | ({"file_bytes": path.stat().st_size} if path else {})
            print(f"{name:<34} {result['bits_per_byte']:.5f} bits per byte", result, flush=True)
        found["llama.cpp cuts text as we do"] = same_tokens(lm, Path(work))
    found["fold"] = {name: fold(name, m) for name, m in FOLDS.items()}
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found["fold"], indent=1))


if __name__ == "__main__":
    main()
