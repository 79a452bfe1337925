"""AdamW with one group per distinct row of the parametrization's table, and the learning-rate schedule."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw as update_

from cerebras_gpt.model.gpt import GPT, roles
from cerebras_gpt.model.parametrization import Row
from cerebras_gpt.plan.plan import Plan

AVERAGE_POWER = 8
"""The running average reaches back over about 1 / (power + 1) of the steps so far, however many they are."""


class Group(TypedDict):
    """Parameters that learn alike."""

    params: list[nn.Parameter]
    lr: float
    lr_scale: float
    betas: tuple[float, float]
    weight_decay: float
    eps: float


class AdamW:
    """torch's fused AdamW on groups of parameters (Loshchilov and Hutter 2019); its moments are there from the start.

    In its functional form, because making a torch.optim.Optimizer imports torch's compiler: that took half of the
    processor time of a run's start, and nothing here is compiled.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        self.param_groups = list(groups)
        self.state: dict[Tensor, dict[str, Tensor]] = {
            parameter: {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
            }
            for group in self.param_groups
            for parameter in group["params"]
        }

    @torch.no_grad()
    def step(self) -> None:
        """An update of every parameter that has a gradient."""
        for group in self.param_groups:
            learned: list[Tensor] = [parameter for parameter in group["params"] if parameter.grad is not None]
            states = [self.state[parameter] for parameter in learned]
            means, squares, steps = ([state[key] for state in states] for key in ("exp_avg", "exp_avg_sq", "step"))
            beta1, beta2 = group["betas"]
            update_(
                learned,
                [parameter.grad for parameter in learned if parameter.grad is not None],
                means,
                squares,
                [],
                steps,
                fused=True,
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )

    def let_go(self) -> None:
        """Forgets all gradients."""
        for parameter in self.state:
            parameter.grad = None


class AveragedAdamW(AdamW):
    """AdamW that keeps a running average of the weights, smoother than the last of them (Polyak and Juditsky 1992).

    A step counts for (power + 1) / (step + power), so nothing needs to be known of the number of steps (Shamir and
    Zhang 2013, polynomial-decay averaging).
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        super().__init__(groups)
        for parameter, state in self.state.items():
            state["average"] = parameter.detach().clone()

    @torch.no_grad()
    def step(self) -> None:
        """An update, and its place in the average."""
        super().step()
        steps = torch.stack([state["step"] for state in self.state.values()]).tolist()  # a GPU is waited for once
        for (parameter, state), step in zip(self.state.items(), steps, strict=True):
            share = (AVERAGE_POWER + 1) / (step + AVERAGE_POWER)
            state["average"].lerp_(parameter, min(1.0, share))

    @contextmanager
    def averages(self) -> Iterator[None]:
        """The averages in the place of the weights, for as long as it lasts."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for parameter, state in self.state.items():
            parameter.data, state["average"] = state["average"], parameter.data


def groups_of(model: GPT, plan: Plan) -> list[Group]:
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
            "lr": 0.0,
            "lr_scale": row.lr_scale,
            "betas": plan.betas,
            "weight_decay": plan.weight_decay * row.decay_scale,
            "eps": plan.adam_eps * row.eps_scale,
        }
        for row, parameters in groups.items()
    ]


def optimizer(model: GPT, plan: Plan) -> AdamW:
    """AdamW whose groups carry `lr_scale` from the table; set their lr each step."""
    return AdamW(groups_of(model, plan))


def averaged_optimizer(model: GPT, plan: Plan) -> AveragedAdamW:
    """The same, which keeps a running average of the weights in its state."""
    return AveragedAdamW(groups_of(model, plan))


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


def set_learning_rate(adamw: AdamW, rate: float) -> None:
    """Gives every group the scheduled rate times its scale."""
    for group in adamw.param_groups:
        group["lr"] = rate * group["lr_scale"]


def weights(model: GPT) -> dict[str, Tensor]:
    """Every parameter by name."""
    return {name: parameter for name, parameter, _ in roles(model)}


def state_tensors(adamw: AdamW, model: GPT) -> dict[str, Tensor]:
    """All that is kept of every parameter, such as both moments and the update count, by name."""
    return {
        f"{name}.{key}": value
        for name, parameter, _ in roles(model)
        for key, value in adamw.state.get(parameter, {}).items()
    }
