"""Causal attention on a GPU, forward and backward: torch's kernels and flash-attn-4, free and in one order of sums.

    python benchmarks/attention_gpu.py --out benchmarks/results/DATE-attention-gpu.json

2,048 tokens in bfloat16 at the head widths of the family's small and large members. "Same bits" is whether four
backward passes gave the same gradients.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

SHAPES = ((32, 12, 64), (16, 12, 128))
"""Sequences, heads, width of a head."""
SEQ_LEN, CALLS = 2048, 10
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


def milliseconds(work):
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(CALLS):
        work()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - began) / CALLS


def judged(forward, backward):
    """Both times, and whether the gradients are the same every time."""
    first = [gradient.clone() for gradient in backward()]
    same = all(all(map(torch.equal, first, backward())) for _ in range(3))
    return {"forward_ms": milliseconds(forward), "backward_ms": milliseconds(backward), "same_bits": same}


def by_torch(qkv, d_y, backend):
    q, k, v = (x.transpose(1, 2).detach().requires_grad_() for x in qkv.unbind(2))

    def forward():
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    y = forward()
    return judged(forward, lambda: torch.autograd.grad(y, (q, k, v), d_y.transpose(1, 2), retain_graph=True))


def by_flash(qkv, d_y, ordered):
    from flash_attn.cute.interface import _flash_attn_bwd, _flash_attn_fwd

    scale, d_qkv = qkv.shape[-1] ** -0.5, torch.empty_like(qkv)
    to = dict(zip(("dq", "dk", "dv"), d_qkv.unbind(2), strict=True))

    def forward():
        return _flash_attn_fwd(*qkv.unbind(2), softmax_scale=scale, causal=True, return_lse=True)[:2]

    y, logs = forward()

    def backward():
        how = {"softmax_scale": scale, "causal": True, "deterministic": ordered}
        _flash_attn_bwd(*qkv.unbind(2), y, d_y, logs, **how, **to)
        return [d_qkv]

    return judged(forward, backward)


def attempt(work, *given):
    try:
        return work(*given)
    except Exception as error:
        return {"failed": str(error).partition("\n")[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.utils.deterministic.fill_uninitialized_memory = False
    found = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": []}
    for B, H, D in SHAPES:
        qkv = torch.randn(B, SEQ_LEN, 3, H, D, device="cuda", dtype=torch.bfloat16)
        d_y = torch.randn(B, SEQ_LEN, H, D, device="cuda", dtype=torch.bfloat16)
        for ordered in (False, True):
            torch.use_deterministic_algorithms(ordered)
            measured = {name: attempt(by_torch, qkv, d_y, backend) for name, backend in BACKENDS.items()}
            measured["flash-attn-4"] = attempt(by_flash, qkv, d_y, ordered)
            for name, row in measured.items():
                found["rows"].append({"shape": [B, H, D], "kernel": name, "one_order": ordered, **row})
                print(found["rows"][-1], flush=True)
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
