"""The README.md that goes with an exported model: only what is known of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Template

from cerebras_gpt.model.architecture import Architecture

CARD = Template("""---
license: $licence
library_name: transformers
pipeline_tag: text-generation
tags:
$tags
---

# $name

A GPT-2-style language model of $n_parameters parameters, exported with cerebras-gpt $version, an independent
implementation of the method of Cerebras-GPT (Dey et al. 2023, arXiv 2304.03208). It continues text.

## Shape

$shape

## Training

$training

## How it was exported

$fold

The files were read back and compared with the model itself, in float32:

$proof

## How to use it

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this folder
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
ids = tokenizer("Once upon a time", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=50)[0]))
```
""")


@dataclass(frozen=True)
class Origin:
    """What a run says of its model; what it does not say is empty."""

    name: str
    training: Mapping[str, str]
    """Facts of the training, label by label."""
    fold: Mapping[str, str]
    """What the fold did to which weights; empty if it was plain GPT-2 before."""


def model_card(
    origin: Origin, architecture: Architecture, proof: Sequence[str], licence: str | None, version: str
) -> str:
    """The card, as Markdown behind a YAML header."""
    shape = {
        "layers": architecture.n_layers,
        "d_model": architecture.d_model,
        "heads": architecture.n_heads,
        "d_ffn": architecture.d_ffn,
        "activation": architecture.activation,
        "vocabulary": f"{architecture.vocab_size:,}",
        "context": f"{architecture.seq_len:,} tokens",
        "head": "tied to the token table" if architecture.tied else "a table of its own",
        "weights": "float32",
    }
    return CARD.substitute(
        licence=licence or "unknown",
        tags="\n".join(f"- {tag}" for tag in ("gpt2", "text-generation", "cerebras-gpt")),
        name=" ".join(origin.name.split()),
        n_parameters=f"{architecture.n_parameters:,}",
        version=version,
        shape=table(shape),
        training=table(origin.training) if origin.training else "The run that it comes from says nothing about it.",
        fold=fold_words(origin.fold),
        proof="\n".join(f"- {line}" for line in proof),
    )


def table(rows: Mapping[str, object]) -> str:
    """A Markdown table of two columns."""
    return "\n".join(["| | |", "| --- | --- |", *(f"| {label} | {value} |" for label, value in rows.items())])


def fold_words(fold: Mapping[str, str]) -> str:
    """What was multiplied into what, as a sentence."""
    if not fold:
        return "It computes as GPT-2 does, so its weights are as they were trained."
    changes = ", ".join(f"{part} {change}" for part, change in fold.items())
    return (
        f"It was trained in another parametrization, whose factors went into the weights ({changes}), so that it "
        "computes the same as a plain GPT-2. To train it on, start from the run itself."
    )
