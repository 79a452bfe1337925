"""A trained model from elsewhere, tensor by tensor: a minGPT that sorts six digits, against its recorded activations.

    python benchmarks/nano_sort.py DIR --out benchmarks/results/DATE-nano-sort.json

DIR holds gpt-nano-sort-model.orig.json (weights) and gpt-nano-sort-t0-partials.orig.json (ids of three rows
and 24 tensors of their forward pass), as made for the visualisation of a GPT at bbycroft.net/llm, and optionally
hf/model.safetensors, the same weights under GPT-2's names. Every recorded tensor is compared with ours, and all 729
inputs are sorted.
"""

import argparse
import base64
import itertools
import json
from datetime import date
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from cerebras_gpt.doctor import environment
from cerebras_gpt.interop.gpt2 import our_name, turned
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.attention import causal_attention
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.plan.families import standard

MACHINE = ("processor", "cores", "instructions", "python", "torch", "numpy")
N_DIGITS, LENGTH = 3, 6
BLOCK = {
    "ln1": "norm_attention",
    "qkv": "attention.qkv",
    "yProj": "attention.out",
    "ln2": "norm_feed_forward",
    "fc": "feed_forward.up",
    "mlp": "feed_forward.down",
}
"""Recorded name to our module of the first block that gives the same."""
TAKEN = {"y": "attention.out", "attnResid": "norm_feed_forward", "gelu": "feed_forward.down"}
"""Recorded name to our module of the first block that takes the same."""


def read(file):
    """Settings and tensors of a recorded file."""
    content = json.loads(file.read_text())
    tensors = {}
    for name, value in content.items():
        if "data" in value:
            numbers = np.frombuffer(base64.b64decode(value["data"]), dtype="<f4").reshape(value["shape"])
            tensors[name] = torch.from_numpy(numbers.copy())
    return content["config"], tensors


def load(folder):
    """Our network with the recorded weights; the other file of weights, if there, must hold the same bits."""
    config, theirs = read(folder / "gpt-nano-sort-model.orig.json")
    shape = Architecture(
        config["n_embd"],
        config["n_layer"],
        config["n_head"],
        config["vocab_size"],
        config["block_size"],
        activation="gelu_new",
        tied=False,
    )
    model = GPT(shape, standard(shape)).eval()
    # minGPT keeps its matrices as linear layers, (out, in), as we do; its buffers of masks have no name of ours.
    ours = {our_name(name): tensor for name, tensor in theirs.items() if our_name(name)}
    model.load_state_dict(ours)
    other = folder / "hf" / "model.safetensors"
    if other.exists():
        again = {our_name(name): turned(name, tensor) for name, tensor in load_file(other).items()}
        assert again.keys() == ours.keys() and all(torch.equal(again[name], ours[name]) for name in ours)
    return model


def activations(model, ids):
    """Every intermediate tensor of a forward pass under its recorded name; ids (B, T)."""
    found, block = {}, model.blocks[0]

    def keep(name):
        return lambda module, taken, given: found.__setitem__(name, given)

    def keep_taken(name):
        return lambda module, taken: found.__setitem__(name, taken[0])

    given = {"tok_emb": model.token_embedding, "pos_emb": model.position_embedding, "ln_f": model.norm}
    given |= {f"block{index}": module for index, module in enumerate(model.blocks)}
    given |= {name: block.get_submodule(path) for name, path in BLOCK.items()}
    handles = [module.register_forward_hook(keep(name)) for name, module in given.items()]
    handles += [block.register_forward_pre_hook(keep_taken("x"))]
    handles += [block.get_submodule(path).register_forward_pre_hook(keep_taken(name)) for name, path in TAKEN.items()]
    found["lm_head"] = model(ids)  # (B, T, V)
    for handle in handles:
        handle.remove()
    found["mlpResid"] = found["block0"]
    found["probs"] = found["lm_head"].softmax(-1)
    return {name: tensor.detach() for name, tensor in (found | inside_attention(block, found["qkv"])).items()}


def inside_attention(block, qkv):
    """What the first block's attention forms between its two products: (B, T, 3 C) -> tensors by recorded name."""
    B, T, _ = qkv.shape
    stacked = qkv.view(B, T, 3, block.attention.n_heads, -1).permute(2, 0, 3, 1, 4)  # (3, B, H, T, D)
    q, k, v = stacked.unbind(0)
    past = torch.ones(T, T, dtype=torch.bool).tril()
    att = (q @ k.mT * block.attention.scale).masked_fill(~past, float("-inf"))  # (B, H, T, T)
    # The probabilities are those that our attention keeps for its way back: they are not computed again here.
    _, kept = causal_attention(stacked, block.attention.scale).grad_fn.saved_tensors
    return {"q": q, "k": k, "v": v, "att": att, "attSm": kept.view(att.shape)}


def differences(model, folder):
    """Largest absolute difference of each recorded tensor."""
    _, recorded = read(folder / "gpt-nano-sort-t0-partials.orig.json")
    ids = recorded.pop("idx").long()
    ours = activations(model, ids)
    assert ours.keys() == recorded.keys(), ours.keys() ^ recorded.keys()
    found = {}
    for name, theirs in recorded.items():
        mine = ours[name].expand(theirs.shape)
        assert torch.equal(mine.isinf(), theirs.isinf()), name
        found[name] = float((mine - theirs).nan_to_num(0.0).abs().max())
    return found


@torch.no_grad()
def n_sorted(model):
    """How many of all inputs come out sorted, each next digit the likeliest."""
    inputs = torch.tensor(list(itertools.product(range(N_DIGITS), repeat=LENGTH)))  # (729, 6)
    ids = inputs
    for _ in range(LENGTH):
        ids = torch.cat([ids, model(ids)[:, -1].argmax(-1, keepdim=True)], dim=1)
    return int((ids[:, LENGTH:] == inputs.sort(dim=1).values).all(1).sum()), len(inputs)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = load(given.folder)
    found = differences(model, given.folder)
    right, n_inputs = n_sorted(model)
    machine = {key: value for key, value in environment().items() if key in MACHINE}
    result = {
        "date": date.today().isoformat(),
        "machine": machine,
        "differences": found,
        "largest": max(found.values()),
        "sorted": [right, n_inputs],
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    for name, difference in found.items():
        print(f"{name:<10} {difference:.1e}")
    print(f"{len(found)} tensors, largest difference {max(found.values()):.1e}; sorted {right} of {n_inputs}")


if __name__ == "__main__":
    main()
