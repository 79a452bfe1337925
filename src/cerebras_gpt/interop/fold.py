"""Any of our models as a plain GPT-2 that computes the same: what the parametrization multiplies goes into weights."""

from dataclasses import replace

import torch

from cerebras_gpt.model.gpt import GPT
from cerebras_gpt.model.parametrization import Parametrization


@torch.no_grad()
def folded(model: GPT) -> GPT:
    """The same function of the ids, to rounding, with standard scales and tables of width d_model.

    Embeddings take m_emb; the final norm takes the logit scale and, as the tied head is the embedding, 1 / m_emb; the
    query takes the attention scale times sqrt(d_head); what writes to the residual stream takes its scale. The
    projection of a narrower table goes into the table. The result is for use: the fold changes how it would train.
    """
    table, shape = model.parametrization, model.architecture
    plain = GPT(replace(shape, d_embedding=None), Parametrization(shape.n_layers, shape.d_head))
    weights = {name: parameter.clone() for name, parameter in model.named_parameters()}
    projection = weights.pop("projection.weight", None)  # (C, E)
    for name in ("token_embedding.weight", "position_embedding.weight"):
        wide = weights[name] if projection is None else weights[name] @ projection.T  # (V or T, C)
        weights[name] = wide * table.embedding_scale
    head_scale = table.embedding_scale if shape.tied else 1.0
    for name in ("norm.weight", "norm.bias"):
        weights[name] = weights[name] * (table.logit_scale / head_scale)
    query = query_factor(model)
    for index in range(shape.n_layers):
        for kind in ("weight", "bias"):
            weights[f"blocks.{index}.attention.qkv.{kind}"][: shape.d_model] *= query
            weights[f"blocks.{index}.attention.out.{kind}"] *= table.residual_scale
            weights[f"blocks.{index}.feed_forward.down.{kind}"] *= table.residual_scale
    plain.to(model.head_table.dtype).load_state_dict(weights)
    return plain.eval()


def query_factor(model: GPT) -> float:
    """The attention scale over that of GPT-2, 1/sqrt(d_head)."""
    return float(model.architecture.d_head ** (0.5 - model.parametrization.attention_power))


def fold_changes(model: GPT) -> dict[str, str]:
    """What `folded` does to which weights, in words; empty for a plain GPT-2."""
    table, shape = model.parametrization, model.architecture
    factors = {
        "embeddings": table.embedding_scale,
        "final norm": table.logit_scale / (table.embedding_scale if shape.tied else 1.0),
        "query": query_factor(model),
        "residual branches": table.residual_scale,
    }
    changes = {part: f"x {factor:.6g}" for part, factor in factors.items() if factor != 1.0}
    return changes if shape.table_width == shape.d_model else {"tables": "x their projection"} | changes


def is_plain(model: GPT) -> bool:
    """Whether the model computes as GPT-2 does, so that folding would change nothing."""
    table, shape = model.parametrization, model.architecture
    scales = (table.embedding_scale, table.logit_scale, table.residual_scale, query_factor(model))
    return set(scales) == {1.0} and shape.table_width == shape.d_model
