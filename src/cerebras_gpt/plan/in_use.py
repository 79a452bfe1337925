"""Training against use: the size that costs least in both together, at the loss of a compute-optimal plan."""

import math
from dataclasses import replace

from cerebras_gpt.plan.budget import Text
from cerebras_gpt.plan.inference import inference_flops
from cerebras_gpt.plan.laws import EPOCH, ParametricLaw
from cerebras_gpt.plan.optimal import ENDLESS, check_epochs, family_plan, rules, text_reason
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.plan.sizes import FAMILY_WIDTHS

LAW_REACHES = 44e6
"""Parameters of the smallest run behind the law; below it the law is extrapolated."""


def for_use(optimal: Plan, inference_tokens: float, text: Text = ENDLESS, law: ParametricLaw = EPOCH) -> Plan:
    """The plan of the family that reaches the loss of a compute-optimal one at least training + inference FLOPs.

    Training counts 6 N D, a token of inference 2 N (Dey et al. 2023, section on trade-offs); never a larger model.
    """
    if not 0 <= inference_tokens < math.inf:
        raise ValueError(f"{inference_tokens:g} tokens of inference cannot be; give 0 or more, such as 1e11")
    loss = law.loss(optimal.architecture.n_parameters, optimal.tokens)
    plans = []
    for d_model in FAMILY_WIDTHS[: FAMILY_WIDTHS.index(optimal.architecture.d_model)]:
        tokens = law.tokens(loss, family_plan(d_model, text, 1).architecture.n_parameters)
        if tokens < math.inf:
            plans.append(family_plan(d_model, text, tokens))
    best = min([optimal, *plans], key=lambda plan: total_flops(plan, inference_tokens))
    check_epochs(best, text)
    return replace(best, reasons=(use_reason(best, optimal, inference_tokens), *rules(best), text_reason(best, text)))


def training_flops_by_size(plan: Plan) -> float:
    """6 N D, the convention that the trade-off is counted in."""
    return 6.0 * plan.architecture.n_parameters * plan.tokens


def total_flops(plan: Plan, inference_tokens: float) -> float:
    """FLOPs of training and of so many tokens of inference."""
    return training_flops_by_size(plan) + inference_flops(plan.architecture.n_parameters) * inference_tokens


def use_reason(plan: Plan, optimal: Plan, inference_tokens: float) -> str:
    """What the plan spends more in training and less in all than the compute-optimal one."""
    saved = 1 - total_flops(plan, inference_tokens) / total_flops(optimal, inference_tokens)
    more = training_flops_by_size(plan) / training_flops_by_size(optimal) - 1
    far = "; the law is extrapolated at this size" if plan.architecture.n_parameters < LAW_REACHES else ""
    return (
        f"use: {inference_tokens:.3g} tokens of inference make it cost {saved:.0%} less in all (6 N D + 2 N each) than "
        f"the compute-optimal {optimal.name} on {optimal.tokens:.3g} tokens, and {more:.0%} more to train, at equal "
        f"loss by the law of Besiroglu et al. 2024{far}"
    )
