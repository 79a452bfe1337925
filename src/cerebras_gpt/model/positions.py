"""A longer window for a trained network: its learned positions, interpolated."""

from dataclasses import replace

import torch
from torch import Tensor

from cerebras_gpt.model.gpt import GPT


def interpolated(table: Tensor, n: int) -> Tensor:
    """Rows between those that were learned, (T, C) -> (n, C): row t is the learned one at t T / n.

    So no position lies outside what the network knows; as Chen et al. 2023 (section 2.3) do with rotary positions and
    Dosovitskiy et al. 2021 (section 3.2) with learned ones. Beyond the last learned row there is nothing to go
    towards: it is repeated. At n = 2 T every second row is a learned one.
    """
    T = len(table)
    at = (torch.arange(n, dtype=torch.float64) * T / n).clamp(max=T - 1)  # (n,)
    low = at.long()
    share = (at - low).to(table.dtype)[:, None]  # (n, 1)
    return torch.lerp(table[low], table[(low + 1).clamp(max=T - 1)], share)


@torch.no_grad()
def stretched(model: GPT, seq_len: int) -> GPT:
    """The same network with a window of seq_len tokens; it should be trained a little before use."""
    shape = model.architecture
    if seq_len <= shape.seq_len:
        raise ValueError(f"a window of {seq_len} tokens is no longer than {shape.seq_len}; give more")
    made = GPT(replace(shape, seq_len=seq_len), model.parametrization)
    tensors = dict(model.state_dict())
    tensors["position_embedding.weight"] = interpolated(tensors["position_embedding.weight"], seq_len)
    made.load_state_dict(tensors)
    return made.train(model.training)
