"""A plain GPT-2 as a Hugging Face folder: settings, weights, tokenizer; written, and read back for the proof."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from cerebras_gpt.files import read_json, write_synced
from cerebras_gpt.interop.gpt2 import gpt2_config, gpt2_tensors, our_name, turned
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.text.tokenizer import END_OF_TEXT, Tokenizer

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9
"""Largest file of weights, unless a single tensor is larger."""


def write_hf_folder(folder: Path, model: GPT, tokenizer: Tokenizer, shard_bytes: int = SHARD_BYTES) -> None:
    """Writes synced files that transformers, vLLM, CTranslate2 and llama.cpp's converter read without overrides.

    The model must compute as GPT-2 does (`fold.folded`). Nothing here is a pickle, and nothing names code to run.
    """
    architecture = model.architecture
    texts = {"config.json": as_json(gpt2_config(architecture, tokenizer.end_of_text))}
    texts["generation_config.json"] = as_json(generation_config(tokenizer.end_of_text))
    texts |= tokenizer_files(tokenizer, architecture.seq_len)
    for name, text in texts.items():
        write_synced(folder / name, [text.encode("utf-8")])
    write_weights(folder, gpt2_tensors(dict(model.named_parameters())), shard_bytes)


def as_json(value: object) -> str:
    """JSON as people read it, in UTF-8."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def generation_config(end_of_text: int) -> dict[str, object]:
    """How transformers generates unless told otherwise: greedily, up to the end of the text."""
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), end_of_text)
    return {"do_sample": False, **ids}


def write_weights(folder: Path, tensors: Mapping[str, Tensor], shard_bytes: int) -> None:
    """One safetensors file, or several with an index if they do not fit in one of shard_bytes."""
    parts = list(shards(tensors, shard_bytes))
    if len(parts) == 1:
        write_tensors(folder / WEIGHTS, parts[0])
        return
    names = [f"model-{n:05}-of-{len(parts):05}.safetensors" for n in range(1, len(parts) + 1)]
    for name, part in zip(names, parts, strict=True):
        write_tensors(folder / name, part)
    n_bytes = sum(tensor.nbytes for tensor in tensors.values())
    where = {key: name for name, part in zip(names, parts, strict=True) for key in part}
    index = {"metadata": {"total_size": n_bytes}, "weight_map": where}
    write_synced(folder / INDEX, [as_json(index).encode("utf-8")])


def shards(tensors: Mapping[str, Tensor], shard_bytes: int) -> Iterator[dict[str, Tensor]]:
    """The tensors in order, in parts of at most shard_bytes, each of at least one tensor."""
    part: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if part and sum(other.nbytes for other in part.values()) + tensor.nbytes > shard_bytes:
            yield part
            part = {}
        part[name] = tensor
    yield part


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A synced safetensors file, marked as torch's as transformers wants it."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_synced(path, [safetensors.torch.save(plain, {"format": "pt"})])


def tokenizer_files(tokenizer: Tokenizer, seq_len: int) -> dict[str, str]:
    """The tokenizer in each form that readers look for: its own, GPT-2's two lists, and the settings beside them."""
    vocabulary, merges = vocabulary_and_merges(tokenizer)
    special = {"content": END_OF_TEXT, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
    settings = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {str(tokenizer.end_of_text): {**special, "special": True}},
        **names,
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "model_max_length": seq_len,
        "tokenizer_class": "GPT2Tokenizer",
    }
    return {
        "tokenizer.json": tokenizer.to_json(),
        "tokenizer_config.json": as_json(settings),
        "special_tokens_map.json": as_json(names),
        "vocab.json": json.dumps(vocabulary, ensure_ascii=False),
        "merges.txt": "\n".join(["#version: 0.2", *map(" ".join, merges)]) + "\n",
    }


def vocabulary_and_merges(tokenizer: Tokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Every token with its id in the order of the ids, added ones included, and the merges in their order."""
    parts = json.loads(tokenizer.to_json())
    ids = dict(parts["model"]["vocab"]) | {token["content"]: token["id"] for token in parts["added_tokens"]}
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in parts["model"]["merges"]]
    return dict(sorted(ids.items(), key=lambda item: item[1])), [(left, right) for left, right in merges]


def read_hf_weights(folder: Path, architecture: Architecture) -> dict[str, Tensor]:
    """The weights of such a folder under our names and in our layouts, read from its files alone."""
    found: dict[str, Tensor] = {}
    for file in weight_files(folder):
        for name, tensor in safetensors.torch.load_file(folder / file).items():
            ours = our_name(name)
            assert ours is not None
            found[ours] = turned(name, tensor)
    return found


def weight_files(folder: Path) -> Iterable[str]:
    """The names of the files that hold the weights."""
    if not (folder / INDEX).exists():
        return [WEIGHTS]
    index = read_json(folder / INDEX)["weight_map"]
    assert isinstance(index, dict)
    return sorted(set(index.values()))
