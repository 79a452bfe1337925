"""Causal attention on this CPU: our blocks against torch's scaled_dot_product_attention, forward and backward.

    python benchmarks/attention.py

The two alternate in one process; medians and their ratio are printed. Believe the ratio, not the milliseconds.
"""

import statistics
import time

from cerebras_gpt.process import bind_threads, keep_memory

bind_threads()  # before torch
keep_memory()

import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from cerebras_gpt.model.attention import causal_attention  # noqa: E402

SHAPES = [(8, 2, 256, 64), (8, 4, 256, 64), (4, 12, 512, 64), (1, 12, 2048, 64)]
REPEATS = 15


def milliseconds(attention, qkv, d_y):
    started = time.perf_counter()
    attention(qkv).backward(d_y)
    return 1e3 * (time.perf_counter() - started)


def compare(shape):
    qkv = torch.randn((3, *shape), dtype=torch.bfloat16).requires_grad_()
    d_y = torch.randn(shape, dtype=torch.bfloat16)
    scale = shape[-1] ** -0.5
    both = {
        "ours": lambda qkv: causal_attention(qkv, scale),
        "torch": lambda qkv: F.scaled_dot_product_attention(*qkv.unbind(0), is_causal=True, scale=scale),
    }
    spent = {name: [] for name in both}
    for _ in range(REPEATS):
        for name, attention in both.items():
            spent[name].append(milliseconds(attention, qkv, d_y))
    return {name: statistics.median(times[2:]) for name, times in spent.items()}


def main():
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, bfloat16, forward + backward")
    print(f"{'B, H, T, D':<20} {'torch ms':>9} {'ours ms':>9} {'ratio':>6}")
    for shape in SHAPES:
        found = compare(shape)
        ratio = found["torch"] / found["ours"]
        print(f"{shape!s:<20} {found['torch']:>9.2f} {found['ours']:>9.2f} {ratio:>6.2f}")


if __name__ == "__main__":
    main()
