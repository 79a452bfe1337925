"""Weights in fewer bits: groups of whole numbers with a common scale."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

Kind = Literal["float32", "bfloat16", "int8", "int4"]
KINDS: tuple[Kind, ...] = get_args(Kind)

GROUP = 32
"""Numbers of a row that share a scale: 16 bits more for each 32."""
LANES = 16
"""Rows of a weight that the kernel computes side by side."""
SMALLEST = {"int8": -127, "int4": -8}
LARGEST = {"int8": 127, "int4": 7}
HEAD: dict[Kind, Kind] = {"float32": "float32", "bfloat16": "bfloat16", "int8": "int8", "int4": "int8"}
"""Bits of the head: in int4 it would cost more than all other weights together (benchmarks/quantised.py)."""


class Quantised(NamedTuple):
    """A weight as codes times scales; n_in is filled up to a multiple of GROUP with zeros."""

    codes: Tensor
    """(n_out, n_in) in int8."""
    scales: Tensor
    """(n_out, n_in / GROUP) in bfloat16, whose range is float32's."""


def filled(weight: Tensor) -> Tensor:
    """The weight with zeros to the right, up to a multiple of GROUP: (O, I) -> (O, I')."""
    return F.pad(weight, (0, -weight.shape[1] % GROUP))


def quantise(weight: Tensor, kind: Kind) -> Quantised:
    """The nearest codes, symmetric around zero, group by group: (n_out, n_in) float32 -> codes and scales.

    The scale puts the number of largest size of its group on the smallest code, as int4 has one more below zero.
    """
    weight = filled(weight)
    groups = weight.view(len(weight), -1, GROUP)  # (O, G, 32)
    low, high = groups.aminmax(dim=-1, keepdim=True)  # (O, G, 1) each
    extreme = torch.where(-low > high, low, high)  # (O, G, 1)
    scales = (extreme / SMALLEST[kind]).bfloat16()  # (O, G, 1)
    inverse = torch.where(scales == 0, 0, 1 / scales.float())
    codes = (groups * inverse).round_().clamp_(SMALLEST[kind], LARGEST[kind])  # (O, G, 32)
    return Quantised(codes.to(torch.int8).view(len(weight), -1), scales.squeeze(-1))


def dequantised(weight: Quantised, n_in: int) -> Tensor:
    """The numbers that the codes stand for: (n_out, n_in) in float32."""
    groups = weight.codes.view(*weight.scales.shape, GROUP) * weight.scales[..., None].float()  # (O, G, 32)
    return groups.view(len(weight.codes), -1)[:, :n_in].contiguous()


def rounded(weight: Tensor, kind: Kind) -> Tensor:
    """What is left of a weight in these bits, in float32: (n_out, n_in) -> (n_out, n_in)."""
    if kind == "float32":
        return weight
    if kind == "bfloat16":
        return weight.bfloat16().float()
    return dequantised(quantise(weight, kind), weight.shape[1])


CODE_BYTES = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0, "int4": 0.5}
BYTES = {**CODE_BYTES, "int8": 1 + 2 / GROUP, "int4": 0.5 + 2 / GROUP}
"""Of a number, its part of a scale with it."""


def stored_bytes(n_in_blocks: int, n_in_head: int, kind: Kind) -> int:
    """Bytes that so many numbers take, fillings left out: what a token has to read."""
    return round(n_in_blocks * BYTES[kind] + n_in_head * BYTES[HEAD[kind]])
