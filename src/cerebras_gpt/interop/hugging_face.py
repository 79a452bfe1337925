"""A Hugging Face GPT-2 folder as our model and tokenizer: read as data, checked before anything large is made."""

import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from cerebras_gpt.interop.folder import shown
from cerebras_gpt.interop.gpt2 import HEAD, gpt2_name, our_name, turned
from cerebras_gpt.interop.settings import Settings, read_settings
from cerebras_gpt.interop.vocabulary import read_tokenizer
from cerebras_gpt.interop.weights import Weights
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.text.tokenizer import Tokenizer

BUFFERS = re.compile(r"(transformer\.)?(h\.\d{1,8}\.)?attn\.(masked_)?bias")
"""Causal masks that older versions of transformers stored with the weights."""
LONGEST_NAME = 100
LAYER = re.compile(r"(?:transformer\.)?h\.(\d{1,8})\.")


class Reading(NamedTuple):
    """What a folder held."""

    model: GPT
    tokenizer: Tokenizer | None
    settings: Settings
    files: tuple[str, ...]
    """Names of the files with tensors."""
    n_tensors: int
    """Tensors that became parameters."""
    dtypes: tuple[str, ...]
    """The types in which they were stored."""
    ignored: tuple[str, ...]
    """Names of mask buffers, which hold nothing learned."""
    n_rows_cut: int
    """Rows of the token table that no token of the tokenizer stands for; they were left out."""


def read_folder(folder: Path, tokenizer: Tokenizer | None = None) -> Reading:
    """The model of a folder, with the given tokenizer or else the folder's own, if it has one.

    Raises ValueError or FileNotFoundError naming the file, key or tensor. Rows beyond the tokenizer's ids are cut, so
    that no id is ever generated that has no text; of the remaining tokens the logits stay the same.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; give one with config.json and model.safetensors")
    settings = read_settings(folder)
    tokenizer = tokenizer or read_tokenizer(folder)
    n_rows = settings.architecture.vocab_size
    n_tokens = tokenizer.vocab_size if tokenizer else n_rows
    if n_tokens > n_rows:
        raise ValueError(f"the tokenizer has {n_tokens:,} tokens, the model of {folder} {n_rows:,}; give its own")
    weights = Weights(folder)
    ignored = tuple(sorted(name for name in weights.stored if BUFFERS.fullmatch(name)))
    name_by_ours = _names(weights, settings, set(ignored))
    _check_shapes(weights, settings, name_by_ours)
    model = GPT(replace(settings.architecture, vocab_size=n_tokens), settings.parametrization)
    _fill(model, weights, name_by_ours)
    dtypes = tuple(sorted({weights.stored[name].dtype for name in name_by_ours.values()}))
    files = tuple(path.name for path in weights.paths)
    return Reading(model.eval(), tokenizer, settings, files, len(name_by_ours), dtypes, ignored, n_rows - n_tokens)


def _names(weights: Weights, settings: Settings, ignored: set[str]) -> dict[str, str]:
    """The folder's name of each of our parameters; raises ValueError naming a tensor that we do not know."""
    where, stored = f"the weights in {weights.folder}", weights.stored
    found: dict[str, str] = {}
    for name in sorted(stored.keys() - ignored):
        ours = our_name(name) if len(name) <= LONGEST_NAME else None
        if ours is None:
            raise ValueError(f"{where} hold {shown(name)}, which GPT-2 does not have; no other network can be read")
        if ours in found:
            raise ValueError(f"{where} hold both {shown(found[ours])} and {shown(name)}; remove one")
        found[ours] = name
    n_blocks = len({layer[1] for name in found.values() if (layer := LAYER.match(name))})
    if n_blocks < settings.architecture.n_layers:  # so a depth that the weights do not have costs nothing
        says = f"config.json says n_layer {settings.architecture.n_layers:,}"
        raise ValueError(f"{says}, {where} hold {n_blocks:,} blocks; fetch both again")
    if settings.architecture.tied and "head.weight" in found:
        _check_tied(weights, found.pop("head.weight"), found)
    return found


def _check_shapes(weights: Weights, settings: Settings, name_by_ours: dict[str, str]) -> None:
    """Raises ValueError unless the tensors are just those of the network, in the right shapes."""
    where = f"the weights in {weights.folder}"
    with torch.device("meta"):  # shapes alone, so that sizes which the weights do not have cost nothing
        expected = dict(GPT(settings.architecture, settings.parametrization).named_parameters())
    for ours in sorted(expected.keys() ^ name_by_ours.keys()):
        fault = f"lack {gpt2_name(ours)!r}" if ours in expected else f"hold {name_by_ours[ours]!r} besides"
        raise ValueError(f"{where} {fault}; config.json describes another model")
    for ours, parameter in expected.items():
        name = name_by_ours[ours]
        has, needs = weights.stored[name].shape, tuple(turned(name, parameter).shape)
        if has != needs:
            raise ValueError(f"{where}: {name!r} has shape {shown(has)}, config.json asks for {needs}")


def _check_tied(weights: Weights, head: str, found: dict[str, str]) -> None:
    """Raises ValueError unless the head that a tied model also stores is its token table."""
    table = found.get("token_embedding.weight")
    same = table is not None and weights.stored[table].shape == weights.stored[head].shape
    if table is None or not same or not torch.equal(weights.read(table), weights.read(head)):
        raise ValueError(
            f"{weights.folder}: {HEAD} is not the token table, although config.json says that they are tied; "
            'set "tie_word_embeddings": false there if the head is a table of its own'
        )


@torch.no_grad()
def _fill(model: GPT, weights: Weights, name_by_ours: dict[str, str]) -> None:
    for ours, parameter in model.named_parameters():
        name = name_by_ours[ours]
        parameter.copy_(turned(name, weights.read(name))[: len(parameter)])
