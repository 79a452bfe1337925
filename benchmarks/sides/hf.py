"""transformers in a plain loop, with its own cache."""

import time

import torch
from transformers import GPT2LMHeadModel

from sides import ids_of


def side(kind, folder):
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
