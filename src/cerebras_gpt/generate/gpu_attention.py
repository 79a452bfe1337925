"""Attention of single rows over their slots on a GPU, by Triton, which torch's builds for GPUs bring; imported there.

A row sums over its own past in blocks from the first position on, whatever else is computed: its bits are its own.
Where the cache lies is read from memory, so that one CUDA graph serves every cache.
"""

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 64
"""Positions that a program takes at a time."""


@triton.jit  # type: ignore[untyped-decorator]
def _past(qkv, place, slot, part, layer, head, heads: tl.constexpr, width: tl.constexpr):  # type: ignore[no-untyped-def]
    """Where the keys (part 0) or values (1) of a slot and head begin, in a (L, 2, R, H, S, D) cache."""
    cache = tl.load(place).to(tl.pointer_type(qkv.dtype.element_ty))
    n_slots, n_positions = tl.load(place + 1), tl.load(place + 2)
    return cache + (((layer * 2 + part) * n_slots + slot) * heads + head) * n_positions * width


@triton.jit  # type: ignore[untyped-decorator]
def _keep(  # type: ignore[no-untyped-def]
    qkv, place, slots, positions, layer, heads: tl.constexpr, width: tl.constexpr, padded: tl.constexpr
):
    """Writes a row's key and value of a head to its slot; a row without a slot has none."""
    row, head = tl.program_id(0), tl.program_id(1)
    slot, position = tl.load(slots + row), tl.load(positions + row)
    lanes = tl.arange(0, padded)
    inside = (lanes < width) & (slot >= 0)
    for part in tl.static_range(2):
        new = tl.load(qkv + ((row * 3 + part + 1) * heads + head) * width + lanes, mask=inside, other=0.0)
        past = _past(qkv, place, slot, part, layer, head, heads, width)
        tl.store(past + position * width + lanes, new, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _attend(  # type: ignore[no-untyped-def]
    qkv,
    y,
    place,
    slots,
    positions,
    layer,
    scale,
    heads: tl.constexpr,
    width: tl.constexpr,
    padded: tl.constexpr,
    block: tl.constexpr,
):
    """Mixes the values that a row sees, by the softmax of its scores; 0 for a row without a slot."""
    row, head = tl.program_id(0), tl.program_id(1)
    slot = tl.load(slots + row)
    end = tl.where(slot >= 0, tl.load(positions + row) + 1, 0)
    lanes = tl.arange(0, padded)
    inside = lanes < width
    q = tl.load(qkv + (row * 3 * heads + head) * width + lanes, mask=inside, other=0.0).to(tl.float32) * scale
    keys = _past(qkv, place, slot, 0, layer, head, heads, width)
    values = _past(qkv, place, slot, 1, layer, head, heads, width)
    highest = float("-inf")
    total = 0.0
    mixed = tl.zeros([padded], tl.float32)
    for first in range(0, end, block):
        at = first + tl.arange(0, block)
        seen = at < end
        where, mask = at[:, None] * width + lanes[None, :], seen[:, None] & inside[None, :]
        k = tl.load(keys + where, mask=mask, other=0.0).to(tl.float32)  # (block, D)
        scores = tl.where(seen, tl.sum(k * q[None, :], 1), float("-inf"))  # (block,)
        higher = tl.maximum(highest, tl.max(scores, 0))
        weights, kept = tl.exp(scores - higher), tl.exp(highest - higher)
        v = tl.load(values + where, mask=mask, other=0.0).to(tl.float32)  # (block, D)
        total = total * kept + tl.sum(weights, 0)
        mixed = mixed * kept + tl.sum(weights[:, None] * v, 0)
        highest = higher
    result = tl.where(end > 0, mixed / total, 0.0)
    tl.store(y + (row * heads + head) * width + lanes, result.to(y.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _attend_together(  # type: ignore[no-untyped-def]
    qkv,
    y,
    place,
    slots,
    positions,
    layer,
    scale,
    heads: tl.constexpr,
    width: tl.constexpr,
    padded: tl.constexpr,
    block: tl.constexpr,
):
    """`_attend` of as many rows of one slot as a block has positions, by matrix products."""
    head = tl.program_id(1)
    rows = tl.program_id(0) * block + tl.arange(0, block)
    slot = tl.load(slots + tl.program_id(0) * block)
    is_real, position = tl.load(slots + rows) >= 0, tl.load(positions + rows)
    end = tl.max(tl.where(is_real, position + 1, 0), 0)
    lanes = tl.arange(0, padded)
    inside = lanes < width
    of_rows = (rows[:, None] * 3 * heads + head) * width + lanes[None, :]
    q = tl.load(qkv + of_rows, mask=is_real[:, None] & inside[None, :], other=0.0)  # (rows, D)
    keys = _past(qkv, place, slot, 0, layer, head, heads, width)
    values = _past(qkv, place, slot, 1, layer, head, heads, width)
    highest = tl.full([block], float("-inf"), tl.float32)
    total = tl.zeros([block], tl.float32)
    mixed = tl.zeros([block, padded], tl.float32)
    for first in range(0, end, block):
        at = first + tl.arange(0, block)
        where, mask = at[:, None] * width + lanes[None, :], (at < end)[:, None] & inside[None, :]
        k = tl.load(keys + where, mask=mask, other=0.0)  # (block, D)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale  # (rows, block)
        scores = tl.where(at[None, :] <= position[:, None], scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        weights, kept = tl.exp(scores - higher[:, None]), tl.exp(highest - higher)
        v = tl.load(values + where, mask=mask, other=0.0)  # (block, D)
        total = total * kept + tl.sum(weights, 1)
        mixed = mixed * kept[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        highest = higher
    result = tl.where(is_real[:, None], mixed / total[:, None], 0.0)
    of_rows = (rows[:, None] * heads + head) * width + lanes[None, :]
    tl.store(y + of_rows, result.to(y.dtype.element_ty), mask=inside[None, :])


def mixed(
    qkv: Tensor, place: Tensor, slots: Tensor, positions: Tensor, layer: int, scale: float, together: bool
) -> Tensor:
    """Keeps keys and values, then each row's mix of what its slot holds up to its position: (N, 3, H, D) -> (N, C).

    `place` is (3,): address of the cache, slots, positions of a slot. `slots` (N,) is -1 for rows that fill up; the
    others are all of one slot, and N a multiple of BLOCK, if they are to be computed together.
    """
    N, _, H, D = qkv.shape
    y, padded = qkv.new_empty(N, H * D), triton.next_power_of_2(D)
    _keep[(N, H)](qkv, place, slots, positions, layer, H, D, padded, num_warps=1)
    attend, n = (_attend_together, N // BLOCK) if together else (_attend, N)
    attend[(n, H)](qkv, y, place, slots, positions, layer, scale, H, D, padded, BLOCK, num_warps=4)
    return y


def place_of(kv: Tensor) -> list[int]:
    """What the kernels are told of a (L, 2, R, H, S, D) cache."""
    assert kv.is_contiguous()
    return [kv.data_ptr(), kv.shape[2], kv.shape[4]]
