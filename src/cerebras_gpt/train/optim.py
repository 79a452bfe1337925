"""AdamW with one group per distinct row of the parametrization's table, and the learning-rate schedule."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cerebras_gpt.model.gpt import GPT, roles
from cerebras_gpt.model.parametrization import Row
from cerebras_gpt.plan.plan import Plan

AVERAGE_POWER = 8
"""The running average reaches back over about 1 / (power + 1) of the steps so far, however many they are."""


class AveragedAdamW(torch.optim.AdamW):
    """AdamW that keeps a running average of the weights, smoother than the last of them (Polyak and Juditsky 1992).

    A step counts for (power + 1) / (step + power), so nothing needs to be known of the number of steps (Shamir and
    Zhang 2013, polynomial-decay averaging).
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """An update, and its place in the average."""
        loss = super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                share = (AVERAGE_POWER + 1) / (float(state["step"]) + AVERAGE_POWER)
                state["average"].lerp_(parameter, min(1.0, share))
        return loss

    @contextmanager
    def averages(self) -> Iterator[None]:
        """The averages in the place of the weights, for as long as it lasts."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                parameter.data, state["average"] = state["average"], parameter.data


def groups_of(model: GPT, plan: Plan) -> list[dict[str, object]]:
    """The parameters that learn, by the rows of the table: what AdamW is made from."""
    groups: dict[Row, list[nn.Parameter]] = {}
    for _, parameter, role in roles(model):
        if not parameter.requires_grad:
            continue
        # How a tensor started is over: the rest of its row decides how it learns.
        groups.setdefault(model.parametrization.row(role)._replace(init_std=0.0), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr_scale": row.lr_scale,
            "weight_decay": plan.weight_decay * row.decay_scale,
            "eps": plan.adam_eps * row.eps_scale,
        }
        for row, parameters in groups.items()
    ]


def optimizer(model: GPT, plan: Plan) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) whose groups carry `lr_scale` from the table; set their lr each step."""
    return torch.optim.AdamW(groups_of(model, plan), lr=0.0, betas=plan.betas, fused=True)


def averaged_optimizer(model: GPT, plan: Plan) -> AveragedAdamW:
    """The same, which keeps a running average of the weights in its state."""
    adamw = AveragedAdamW(groups_of(model, plan), lr=0.0, betas=plan.betas, fused=True)
    for group in adamw.param_groups:
        for parameter in group["params"]:
            adamw.state[parameter]["average"] = parameter.detach().clone()
    return adamw


def learning_rate(plan: Plan, step: int) -> float:
    """The rate at lr scale 1 of the given step, counted from 1: up to the peak, then down to its final fraction.

    The peak is reached at the last warm-up step, final_lr_fraction of it at the very last step (the released
    configurations; linear was found slightly better than cosine, Dey et al. 2023, section 2.2).
    """
    if step <= plan.warmup_steps:
        return plan.peak_lr * step / plan.warmup_steps
    left = 1 - (step - plan.warmup_steps) / (plan.steps - plan.warmup_steps)
    shape = {"linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2}[plan.decay]
    return plan.peak_lr * (plan.final_lr_fraction + (1 - plan.final_lr_fraction) * shape)


def set_learning_rate(adamw: torch.optim.AdamW, rate: float) -> None:
    """Gives every group the scheduled rate times its scale."""
    for group in adamw.param_groups:
        group["lr"] = rate * group["lr_scale"]


def weights(model: GPT) -> dict[str, Tensor]:
    """Every parameter by name."""
    return {name: parameter for name, parameter, _ in roles(model)}


def state_tensors(adamw: torch.optim.AdamW, model: GPT) -> dict[str, Tensor]:
    """All that is kept of every parameter, such as both moments and the update count, by name."""
    return {
        f"{name}.{key}": value
        for name, parameter, _ in roles(model)
        for key, value in adamw.state[parameter].items()
        if isinstance(value, Tensor)
    }


def prepare_state(adamw: torch.optim.AdamW) -> None:
    """Makes the zero moments that the first update would make, so that a checkpoint has where to be read into."""
    for group in adamw.param_groups:
        for parameter in group["params"]:
            adamw.state[parameter] |= {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
