"""The settings of a Hugging Face model folder (config.json), read as data: every key is known, or refused by name."""

import difflib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cerebras_gpt.interop.folder import inside, read_object, shown
from cerebras_gpt.model.architecture import Activation, Architecture
from cerebras_gpt.model.parametrization import Parametrization

CONFIG = "config.json"
LARGEST = 1 << 24
"""No width, depth, context or vocabulary is larger than this."""
ALIASES = {
    "hidden_size": "n_embd",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
    "max_position_embeddings": "n_positions",
    "n_ctx": "n_positions",
}
"""Other names that transformers has for the same settings."""
SIZES = ("n_embd", "n_head", "n_layer", "n_positions", "vocab_size")
ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu_python_tanh": "gelu_new",
    "gelu_accurate": "gelu_new",
    "gelu_fast": "gelu_new",
    "relu": "relu",
}
"""Names of the same functions in transformers, equal up to the rounding of float32."""
MUP = (
    "mup_width_scale",
    "mup_embeddings_scale",
    "mup_output_alpha",
    "mup_scale_qk_dot_by_d",
    "position_embedding_type",
)
ARCHITECTURES = {"gpt2": ("GPT2LMHeadModel", "GPT2Model"), "btlm": ("BTLMLMHeadModel", "BTLMModel")}
BTLM_CODE = re.compile(r"([\w./-]+--)?(configuration|modeling)_btlm\.BTLM\w+")

NEUTRAL: dict[str, tuple[object, ...]] = {
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "is_encoder_decoder": (False,),
    "tie_encoder_decoder": (False,),
    "cross_attention_hidden_size": (None,),
    "pruned_heads": (None, {}),
    "alibi_scaling": (None,),
    "chunk_size_feed_forward": (0,),
    "quantization_config": (None,),
}
"""Settings of other computations than ours, which must stand at the values that leave it alone."""
READ = {*SIZES, *ALIASES, "n_inner", "activation_function", "layer_norm_epsilon", "model_type", "architectures"} | {
    "tie_word_embeddings",
    "scale_attn_weights",
    "auto_map",
    *MUP,
}
BOOKKEEPING = """
_attn_implementation _attn_implementation_autoset _commit_hash _name_or_path _num_labels attn_implementation
attn_pdrop bad_words_ids begin_suppress_tokens bos_token_id decoder_start_token_id diversity_penalty do_sample dtype
early_stopping embd_pdrop encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task
forced_bos_token_id forced_eos_token_id gradient_checkpointing id2label initializer_range is_decoder label2id
length_penalty max_length min_length n_special no_repeat_ngram_size num_beam_groups num_beams num_labels
num_return_sequences output_attentions output_hidden_states output_past output_scores pad_token_id
predict_special_tokens prefix problem_type remove_invalid_values reorder_and_upcast_attn repetition_penalty
resid_pdrop return_dict return_dict_in_generate sep_token_id summary_activation summary_first_dropout
summary_proj_to_labels summary_type summary_use_proj suppress_tokens task_specific_params temperature tf_legacy_loss
tokenizer_class top_k top_p torch_dtype torchscript transformers_version typical_p unk_token_id use_bfloat16 use_cache
use_return_dict
"""
"""Keys that transformers writes and that change nothing of a forward pass in float32: training, generation, labels."""


class Settings(NamedTuple):
    """What config.json fixes of a network."""

    architecture: Architecture
    parametrization: Parametrization
    model_type: str
    activation_function: str
    """The activation's name as the folder gives it."""


def read_settings(folder: Path) -> Settings:
    """The network that config.json describes; raises ValueError naming the key that we do not compute."""
    path = inside(folder, CONFIG)
    config = read_object(path)
    try:
        model_type = _model_type(config)
        _check_keys(config, model_type)
        named = _unaliased(config)
        activation = named.get("activation_function", "gelu_new")
        architecture = _architecture(named, _activation(activation))
        return Settings(architecture, _parametrization(named, architecture), model_type, str(activation))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _model_type(config: Mapping[str, object]) -> str:
    found = config.get("model_type")
    if not isinstance(found, str) or found not in ARCHITECTURES:
        raise ValueError(f"model_type is {shown(found)}; only {' and '.join(ARCHITECTURES)} can be read")
    classes = config.get("architectures") or []
    for name in classes if isinstance(classes, list) else [classes]:
        if name not in ARCHITECTURES[found]:
            raise ValueError(f"architectures names {shown(name)}; only {', '.join(ARCHITECTURES[found])} can be read")
    return found


def _check_keys(config: Mapping[str, object], model_type: str) -> None:
    """Raises ValueError for a key that could change the computation, or names code."""
    allowed = READ | set(BOOKKEEPING.split()) | NEUTRAL.keys()
    for key, value in config.items():
        if key not in allowed:
            near = difflib.get_close_matches(key, sorted(allowed), n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"unknown key {shown(key)}; {hint}remove it if the model computes the same without it")
        if key in NEUTRAL and value not in NEUTRAL[key]:
            raise ValueError(f"{key} is {shown(value)}; only {shown(NEUTRAL[key][0])} is what our network computes")
        if key in MUP and model_type != "btlm":
            raise ValueError(f"{key!r} belongs to model_type 'btlm', not {model_type!r}; correct one of them")
        if key == "auto_map" and not _names_btlm(value, model_type):
            raise ValueError(
                f"auto_map names code, {shown(value)}; none is ever executed, so no such model can be read"
            )


def _names_btlm(auto_map: object, model_type: str) -> bool:
    """Whether it names just the published BTLM classes, whose settings we read as data; or nothing."""
    if not auto_map:
        return True
    names = auto_map.values() if isinstance(auto_map, dict) else [None]
    return model_type == "btlm" and all(isinstance(name, str) and BTLM_CODE.fullmatch(name) for name in names)


def _unaliased(config: Mapping[str, object]) -> dict[str, object]:
    """The settings under their first names; raises ValueError if two names of one setting disagree."""
    named = {key: value for key, value in config.items() if key not in ALIASES}
    for alias, key in ALIASES.items():
        if alias in config and named.setdefault(key, config[alias]) != config[alias]:
            raise ValueError(f"{key} is {shown(named[key])} but {alias} is {shown(config[alias])}; make them equal")
    return named


def _activation(name: object) -> Activation:
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ValueError(f"activation_function is {shown(name)}; only {', '.join(ACTIVATIONS)} can be computed")
    return ACTIVATIONS[name]


def _architecture(config: Mapping[str, object], activation: Activation) -> Architecture:
    sizes = {key: _size(config, key) for key in SIZES}
    n_inner = 4 * sizes["n_embd"] if config.get("n_inner") is None else _size(config, "n_inner")
    return Architecture(
        d_model=sizes["n_embd"],
        n_layers=sizes["n_layer"],
        n_heads=sizes["n_head"],
        vocab_size=sizes["vocab_size"],
        seq_len=sizes["n_positions"],
        ffn_multiple=n_inner / sizes["n_embd"],
        activation=activation,
        layer_norm_eps=_number(config, "layer_norm_epsilon", 1e-5),
        tied=_flag(config, "tie_word_embeddings", True),
    )


def _parametrization(config: Mapping[str, object], architecture: Architecture) -> Parametrization:
    """The forward scales; the keys of BTLM are those of muP (Dey et al. 2023, section 2.3), mup_width_scale = 1/m."""
    positions = config.get("position_embedding_type", "learned")
    if positions != "learned":
        raise ValueError(f"position_embedding_type is {shown(positions)}; only 'learned' is what our network computes")
    by_d = _flag(config, "mup_scale_qk_dot_by_d", False)
    power = (1.0 if by_d else 0.5) if _flag(config, "scale_attn_weights", True) else 0.0
    return Parametrization(
        n_layers=architecture.n_layers,
        d_head=architecture.d_head,
        width_multiplier=1 / _number(config, "mup_width_scale", 1.0),
        embedding_scale=_number(config, "mup_embeddings_scale", 1.0),
        output_alpha=_number(config, "mup_output_alpha", 1.0),
        attention_power=power,
    )


def _size(config: Mapping[str, object], key: str) -> int:
    if key not in config:
        raise ValueError(f"{key} is missing; add it")
    value = config[key]
    if type(value) is not int or not 1 <= value <= LARGEST:
        raise ValueError(f"{key} is {shown(value)}; it must be a whole number from 1 to {LARGEST:,}")
    return value


def _number(config: Mapping[str, object], key: str, default: float) -> float:
    value = config.get(key, default)
    if type(value) not in (int, float) or not 1e-30 < value < 1e30:  # type: ignore[operator]
        raise ValueError(f"{key} is {shown(value)}; it must be a number above 0")
    assert isinstance(value, int | float) and math.isfinite(value)
    return float(value)


def _flag(config: Mapping[str, object], key: str, default: bool) -> bool:
    value = config.get(key, default)
    if type(value) is not bool:
        raise ValueError(f"{key} is {shown(value)}; it must be true or false")
    return value
