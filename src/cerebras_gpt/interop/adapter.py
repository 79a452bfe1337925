"""Low-rank updates in PEFT's format: adapter_config.json and adapter_model.safetensors, for the exported GPT-2.

The export multiplies the outputs of some layers (`fold`), so the second factor of an update is multiplied alike.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from cerebras_gpt.files import read_json
from cerebras_gpt.interop.fold import query_factor
from cerebras_gpt.interop.gpt2 import gpt2_name, our_name
from cerebras_gpt.model.gpt import GPT, Linear
from cerebras_gpt.model.lora import TABLE, LowRankEmbedding, LowRankLinear, checked, low_rank_layers

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
PEFT_TABLE, PEFT_HEAD = f"{PREFIX}transformer.wte", f"{PREFIX}lm_head"
"""PEFT sees the table and the head that shares it as two layers, so the one update stands in its files twice."""
PLAIN = {"bias": "none", "use_dora": False, "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {}}
"""Settings that we can do without only if they say this."""


def output_scale(model: GPT, layer: str) -> Tensor:
    """What the export multiplies each output of a layer with: (n_out,)."""
    linear = model.get_submodule(layer)
    rows = linear.up.out_features if isinstance(linear, LowRankLinear) else linear.out_features
    assert isinstance(rows, int)
    scale = torch.ones(rows)
    if layer.endswith("attention.qkv"):
        scale[: model.architecture.d_model] = query_factor(model)
    elif layer.endswith((".attention.out", ".feed_forward.down")):
        scale *= model.parametrization.residual_scale
    return scale


def peft_prefix(layer: str) -> str:
    """The name of a layer in PEFT's files.

    >>> peft_prefix("blocks.0.attention.qkv")
    'base_model.model.transformer.h.0.attn.c_attn'
    """
    return PREFIX + gpt2_name(f"{layer}.weight").removesuffix(".weight")


def adapter_config(model: GPT) -> str:
    """What adapter_config.json holds for a model with low-rank updates."""
    layers = low_rank_layers(model)
    one = next(iter(layers.values()))
    rank = one.up.in_features
    names = {".".join(peft_prefix(layer).split(".")[-2:]) for layer in layers}
    if model.architecture.tied and TABLE in layers:
        names.add("lm_head")
    settings: dict[str, object] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": one.scale * rank,
        "lora_dropout": 0.0,
        "target_modules": sorted(names),
        "fan_in_fan_out": True,
        "bias": "none",
        "inference_mode": True,
        "base_model_name_or_path": None,
    }
    return json.dumps(settings, indent=2) + "\n"


@torch.no_grad()
def adapter_tensors(model: GPT) -> dict[str, Tensor]:
    """The factors under PEFT's names, for the model as `export` writes it."""
    tensors: dict[str, Tensor] = {}
    for name, layer in low_rank_layers(model).items():
        if isinstance(layer, LowRankEmbedding):
            tensors |= table_tensors(model, layer)
            continue
        scale = output_scale(model, name).to(layer.up.weight.device)
        tensors[f"{peft_prefix(name)}.lora_A.weight"] = layer.down.weight
        tensors[f"{peft_prefix(name)}.lora_B.weight"] = layer.up.weight * scale[:, None]
    return tensors


def table_tensors(model: GPT, table: LowRankEmbedding) -> dict[str, Tensor]:
    """The factors of the token table, and of the head where it shares them, as the export folds the table."""
    wide = model.projection(table.down.weight) * model.parametrization.embedding_scale  # (r, C)
    tensors = {
        f"{PEFT_TABLE}.lora_embedding_A": table.up.weight.T.contiguous(),  # (r, V)
        f"{PEFT_TABLE}.lora_embedding_B": wide.T.contiguous(),  # (C, r)
    }
    if model.architecture.tied:
        # Copies: tensors of one file may not share memory.
        tensors |= {f"{PEFT_HEAD}.lora_A.weight": wide.clone(), f"{PEFT_HEAD}.lora_B.weight": table.up.weight.clone()}
    return tensors


def read_adapter(folder: Path, model: GPT) -> GPT:
    """The model with the updates of a PEFT folder on it; raises ValueError naming what does not belong together."""
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder} has no {CONFIG}; give the folder of a LoRA adapter")
    settings = read_json(folder / CONFIG)
    check_settings(settings, folder)
    try:
        tensors = safetensors.torch.load_file(folder / WEIGHTS)
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(f"{folder / WEIGHTS} cannot be read: {error}") from None
    rank, alpha = int(str(settings["r"])), float(str(settings["lora_alpha"]))
    scale = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    layers = {name.rpartition(".lora_")[0] for name in tensors}
    if PEFT_TABLE in layers:
        put_table(model, tensors, rank, scale)
    for layer in sorted(layers - {PEFT_TABLE, PEFT_HEAD} if PEFT_TABLE in layers else layers):
        put(model, layer, tensors, rank, scale)
    return model


def check_settings(settings: Mapping[str, object], folder: Path) -> None:
    """Refuses what is no plain LoRA."""
    if settings.get("peft_type") != "LORA":
        raise ValueError(f"{folder} holds {settings.get('peft_type')}, not LORA; only LoRA adapters come in")
    for name, plain in PLAIN.items():
        if settings.get(name) and settings[name] != plain:
            raise ValueError(
                f"{folder} has {name} {settings[name]!r}, which is not plain LoRA; merge it where it was made"
            )


@torch.no_grad()
def put(model: GPT, layer: str, tensors: Mapping[str, Tensor], rank: int, scale: float) -> None:
    """Puts one layer's update in its place."""
    ours = our_name(f"{layer.removeprefix(PREFIX)}.weight")
    name = (ours or "").removesuffix(".weight")
    parent, _, last = name.rpartition(".")
    linear = model.get_submodule(name) if name in dict(model.named_modules()) else None
    if not isinstance(linear, Linear):
        raise ValueError(f"the adapter is for {layer!r}, which this model lacks or cannot adapt")
    wrapped = LowRankLinear(linear, checked(rank, linear), scale)
    down, up = tensors.get(f"{layer}.lora_A.weight"), tensors.get(f"{layer}.lora_B.weight")
    for own, found, kind in ((wrapped.down.weight, down, "A"), (wrapped.up.weight, up, "B")):
        check_shape(found, own.shape, f"lora_{kind} of {layer!r}")
    assert down is not None and up is not None
    wrapped.down.weight.copy_(down)
    wrapped.up.weight.copy_(up / output_scale(model, name)[:, None])
    setattr(model.get_submodule(parent), last, wrapped)


@torch.no_grad()
def put_table(model: GPT, tensors: Mapping[str, Tensor], rank: int, scale: float) -> None:
    """Puts the update of the token table in its place; the head that shares the table must have the same."""
    if model.architecture.table_width != model.architecture.d_model:
        raise ValueError("the adapter changes the token table, which is narrower in this model than in its export")
    table = model.token_embedding
    wrapped = LowRankEmbedding(table, checked(rank, table), scale)
    rows, wide = tensors.get(f"{PEFT_TABLE}.lora_embedding_A"), tensors.get(f"{PEFT_TABLE}.lora_embedding_B")
    check_shape(rows, wrapped.up.weight.T.shape, f"lora_embedding_A of {PEFT_TABLE!r}")
    check_shape(wide, wrapped.down.weight.T.shape, f"lora_embedding_B of {PEFT_TABLE!r}")
    assert rows is not None and wide is not None
    of_head = [tensors.get(f"{PEFT_HEAD}.lora_{kind}.weight") for kind in "AB"]
    same = [own is not None and torch.equal(own, other) for own, other in zip(of_head, (wide.T, rows.T), strict=True)]
    if all(same) != model.architecture.tied:
        raise ValueError("the adapter does not change the token table and the head alike; merge it where it was made")
    wrapped.up.weight.copy_(rows.T)
    wrapped.down.weight.copy_(wide.T / model.parametrization.embedding_scale)
    model.token_embedding = wrapped  # type: ignore[assignment]


def check_shape(found: Tensor | None, wanted: torch.Size, what: str) -> None:
    """Refuses a factor that is missing or of another shape."""
    if found is None or found.shape != wanted:
        shape = "missing" if found is None else tuple(found.shape)
        raise ValueError(f"{what} is {shape}, {tuple(wanted)} is needed; is it for this model?")
