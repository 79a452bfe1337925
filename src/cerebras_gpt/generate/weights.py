"""Weights in fewer bits: groups of whole numbers with a common scale, and the order in which the kernel reads them."""

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


def filled(weight: Tensor, n_out: int = 1, n_in: int = GROUP) -> Tensor:
    """The weight with zeros to the right and below, up to multiples: (O, I) -> (O', I')."""
    return F.pad(weight, (0, -weight.shape[1] % n_in, 0, -weight.shape[0] % n_out))


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


class Packed(NamedTuple):
    """A weight in the order in which the kernel reads it: LANES rows at a time, along their numbers."""

    codes: Tensor
    """Bytes."""
    scales: Tensor | None
    """(O / LANES, G, LANES) in bfloat16."""


def pack(weight: Tensor | Quantised, kind: Kind) -> Packed:
    """Tiles of LANES rows; in each, 4 bytes of one row (4 int8, 8 int4 in two steps, 2 bfloat16) beside the next's."""
    if isinstance(weight, Quantised):
        scales = _tiles(filled(weight.scales, LANES, 1), 1)[..., 0]  # (O / 16, G, 16)
        codes = filled(weight.codes, LANES).view(torch.uint8) + (128 if kind == "int8" else 8)  # from 0 on, modulo 256
        tiles = _tiles(codes.view(torch.int32), 1).contiguous().view(torch.uint8)  # (O / 16, I / 4, 16, 4)
        if kind == "int4":
            tiles = tiles[:, 0::2] | tiles[:, 1::2] << 4  # (O / 16, I / 8, 16, 4)
        return Packed(tiles.contiguous().view(-1), scales.contiguous())
    per_step = 2 if kind == "bfloat16" else 1
    numbers = filled(weight, LANES).to(torch.bfloat16 if kind == "bfloat16" else torch.float32)
    return Packed(_tiles(numbers, per_step).contiguous().view(-1).view(torch.uint8), None)


def _tiles(numbers: Tensor, per_step: int) -> Tensor:
    """(O, I) -> (O / LANES, I / per_step, LANES, per_step)."""
    O, I = numbers.shape  # noqa: E741
    return numbers.view(O // LANES, LANES, I // per_step, per_step).transpose(1, 2)


def rounded(weight: Tensor, kind: Kind) -> Tensor:
    """What is left of a weight in these bits, in float32: (n_out, n_in) -> (n_out, n_in)."""
    if kind == "float32":
        return weight
    if kind == "bfloat16":
        return weight.bfloat16().float()
    return dequantised(quantise(weight, kind), weight.shape[1])


BYTES = {"float32": 4.0, "bfloat16": 2.0, "int8": 1 + 2 / GROUP, "int4": 0.5 + 2 / GROUP}


def stored_bytes(n_in_blocks: int, n_in_head: int, kind: Kind) -> int:
    """Bytes that so many numbers take, fillings left out: what a token has to read."""
    return round(n_in_blocks * BYTES[kind] + n_in_head * BYTES[HEAD[kind]])
