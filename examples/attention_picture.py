"""What the causal mask changes: attention weights of a small trained model, without it and with it.

python examples/attention_picture.py attention.png
"""

import sys

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from cerebras_gpt import GPT, Architecture, Tokenizer
from cerebras_gpt.model.gpt import initialize
from cerebras_gpt.plan.families import standard
from cerebras_gpt.text.tokenizer import train_tokenizer_up_to

TEXT = "Hello, world!"
STEPS = 40


def trained(tokenizer: Tokenizer, ids: Tensor) -> GPT:
    """A model that knows one sentence by heart: (1, T) ids, the end of text last."""
    shape = Architecture(64, n_layers=2, n_heads=4, vocab_size=tokenizer.vocab_size, seq_len=16, activation="relu")
    model = initialize(GPT(shape, standard(shape)), torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.005)
    for _ in range(STEPS):
        loss = F.cross_entropy(model(ids[:, :-1])[0], ids[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@torch.no_grad()
def scores(model: GPT, ids: Tensor) -> Tensor:
    """What the first layer puts through the softmax, before any mask: (1, T) -> (H, T, T)."""
    T, block = ids.shape[1], model.blocks[0]
    x = model.token_embedding(ids) + model.position_embedding(torch.arange(T))  # (1, T, C)
    qkv = block.attention.qkv(block.norm_attention(x)).view(T, 3, model.architecture.n_heads, -1)  # (T, 3, H, D)
    q, k, _ = qkv.permute(1, 2, 0, 3)  # (H, T, D)
    return q @ k.mT * block.attention.scale


def draw(weights_by_title: dict[str, Tensor], words: list[str], path: str) -> None:
    """Heat maps side by side: a row for each query, a column for each key."""
    figure = Figure(figsize=(7.6, 3.8), layout="constrained")
    for axes, (title, weights) in zip(figure.subplots(1, 2), weights_by_title.items(), strict=True):
        axes.imshow(weights.numpy(), cmap="Blues", vmin=0, vmax=1)
        axes.set_title(title, fontsize=11)
        axes.set_xticks(range(len(words)), words)
        axes.set_yticks(range(len(words)), words)
        axes.set_xlabel("attends to")
        for (row, column), weight in np.ndenumerate(weights.numpy()):
            ink = "white" if weight > 0.6 else "black"
            axes.text(column, row, f"{weight:.2f}", ha="center", va="center", color=ink)
    figure.savefig(path, dpi=90, bbox_inches="tight")


def main() -> None:
    """Trains, takes the weights of the first head in both ways, and draws them."""
    tokenizer = train_tokenizer_up_to([TEXT] * 9, 300)
    ids = torch.tensor([[*tokenizer.encode(TEXT), tokenizer.end_of_text]])  # (1, T)
    words = [tokenizer.decode([index]) for index in ids[0, :-1]]
    logits = scores(trained(tokenizer, ids), ids[:, :-1])[0]  # (T, T)
    future = torch.ones(len(words), len(words), dtype=torch.bool).triu(1)
    weights_by_title = {
        "softmax(QK$^T$ / √d): the future is seen": logits.softmax(-1),
        "with the causal mask: only the past": logits.masked_fill(future, float("-inf")).softmax(-1),
    }
    draw(weights_by_title, words, sys.argv[1] if len(sys.argv) > 1 else "attention.png")


if __name__ == "__main__":
    main()
