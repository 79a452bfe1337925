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
from cerebras_gpt.model.lora import LowRankLinear, check_rank, low_rank_layers

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
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
    settings: dict[str, object] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": one.scale * rank,
        "lora_dropout": 0.0,
        "target_modules": sorted({".".join(peft_prefix(layer).split(".")[-2:]) for layer in layers}),
        "fan_in_fan_out": True,
        "bias": "none",
        "inference_mode": True,
        "base_model_name_or_path": None,
    }
    return json.dumps(settings, indent=2) + "\n"


@torch.no_grad()
def adapter_tensors(model: GPT) -> dict[str, Tensor]:
    """The factors under PEFT's names, for the model as `export` writes it."""
    tensors = {}
    for name, layer in low_rank_layers(model).items():
        scale = output_scale(model, name).to(layer.up.weight.device)
        tensors[f"{peft_prefix(name)}.lora_A.weight"] = layer.down.weight
        tensors[f"{peft_prefix(name)}.lora_B.weight"] = layer.up.weight * scale[:, None]
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
    for layer in sorted({name.rpartition(".lora_")[0] for name in tensors}):
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
    check_rank(rank, linear)
    wrapped = LowRankLinear(linear, rank, scale)
    down, up = tensors.get(f"{layer}.lora_A.weight"), tensors.get(f"{layer}.lora_B.weight")
    for own, found, kind in ((wrapped.down.weight, down, "A"), (wrapped.up.weight, up, "B")):
        if found is None or found.shape != own.shape:
            shape = "missing" if found is None else tuple(found.shape)
            raise ValueError(
                f"lora_{kind} of {layer!r} is {shape}, {tuple(own.shape)} is needed; is it for this model?"
            )
    assert down is not None and up is not None
    wrapped.down.weight.copy_(down)
    wrapped.up.weight.copy_(up / output_scale(model, name)[:, None])
    setattr(model.get_submodule(parent), last, wrapped)
