"""AdamW with its rates, gradient clipping, and steps that are left out when not finite."""

from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from midway.config import require
from midway.train.objective import Objective, ParameterGroup, Position
from midway.train.schedules import cosine, warmup_cosine, warmup_poly


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW and its schedules; the defaults are the paper's recipe."""

    lr: float = 5e-4
    """Peak learning rate, for 256 samples a step if `scale_lr`."""
    scale_lr: bool = True
    """The peak is lr * samples / 256, with the samples of all ranks and micro-batches of a step."""
    final_lr: float = 1e-6
    """Learning rate at the end of the run, whatever the batch."""
    warmup_epochs: float = 10.0
    """Epochs over which the learning rate rises from 0."""
    warmup_steps: int = 0
    """Length of the warm-up in optimiser steps; 0 leaves it to `warmup_epochs`."""
    schedule: Literal["cosine", "poly"] = "cosine"
    """After the warm-up half a cosine wave, or a power of what is left as in mmsegmentation."""
    power: float = 1.0
    """Of the poly schedule; 1 for a straight line."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.04
    """At the beginning."""
    final_weight_decay: float = 0.4
    """At the end, reached along a cosine."""
    clip: Literal["global", "per_tensor", "none"] = "global"
    """One norm over all gradients, or each tensor by its own norm as published code does."""
    clip_norm: float = 3.0
    """Largest norm that a gradient keeps."""

    def __post_init__(self) -> None:
        rules = {
            f"lr = {self.lr}; give a rate above 0": 0 < self.lr < inf,
            f"betas = {self.betas}; give two numbers from 0 to below 1": (
                all(0 <= beta < 1 for beta in self.betas)
            ),
            f"clip_norm = {self.clip_norm}; give a norm above 0": self.clip_norm > 0,
            f"power = {self.power}; give a number above 0": 0 < self.power < inf,
            f"final_lr = {self.final_lr}: the rate would rise; give no more than lr = {self.lr}": (
                self.scale_lr or self.final_lr <= self.lr
            ),
        }
        rates = ("final_lr", "warmup_epochs", "warmup_steps", "weight_decay", "final_weight_decay")
        for name in rates:
            value = getattr(self, name)
            rules[f"{name} = {value}; give 0 or more"] = 0 <= value < inf
        require("optim", rules)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Learning rate and scheduled weight decay of one step."""

    lr: float
    weight_decay: float


def rates_at(position: Position, config: OptimConfig) -> Rates:
    """The rates of the step at `position`."""
    in_epochs = round(config.warmup_epochs * position.steps_per_epoch)
    shape = partial(warmup_poly, power=config.power) if config.schedule == "poly" else warmup_cosine
    return Rates(
        lr=shape(
            position.step,
            position.steps,
            warmup_steps=config.warmup_steps or in_epochs,
            peak=config.lr * position.samples / 256 if config.scale_lr else config.lr,
            final=config.final_lr,
        ),
        weight_decay=cosine(position.progress, config.weight_decay, config.final_weight_decay),
    )


class AdamW(torch.optim.AdamW):
    """Fused AdamW over parameter groups, which can leave out a step that is not finite.

    Whether it does is decided on the device: the fused kernel takes a flag, the same by which a
    gradient scaler skips a step, so the host never waits. A step left out changes neither the
    parameters nor the moments.

    Raises:
        ValueError: If a trainable parameter of the objective is in no group, or in two.

    """

    found_inf: Tensor
    """Read by the fused kernel: 1 if the step is to be left out."""
    skipped_steps: Tensor
    """Steps left out so far; scalar on the device."""
    skipped_in_a_row: Tensor
    """Steps left out since the last one that was not; scalar on the device."""

    def __init__(
        self, objective: Objective, groups: list[ParameterGroup], config: OptimConfig
    ) -> None:
        _check_groups(objective, groups)
        entries: list[dict[str, Any]] = [
            {
                "params": group.parameters,
                "name": group.name,
                "lr_scale": group.lr_scale,
                "scheduled_decay": group.weight_decay == "scheduled",
                "weight_decay": 0.0 if group.weight_decay == "scheduled" else group.weight_decay,
            }
            for group in groups
        ]
        super().__init__(entries, lr=config.lr, betas=config.betas, fused=True)
        device = groups[0].parameters[0].device
        self.skipped_steps = torch.zeros((), device=device)
        self.skipped_in_a_row = torch.zeros((), device=device)

    def set_rates(self, rates: Rates) -> None:
        """Give every group its learning rate and weight decay for the coming step."""
        for group in self.param_groups:
            group["lr"] = rates.lr * group["lr_scale"]
            if group["scheduled_decay"]:
                group["weight_decay"] = rates.weight_decay

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the moments; rates, betas and decay stay those of the configuration."""
        own = [
            {key: value for key, value in group.items() if key != "params"}
            for group in self.param_groups
        ]
        super().load_state_dict(state_dict)
        for group, settings in zip(self.param_groups, own, strict=True):
            group.update(settings)

    def step_unless(self, bad: Tensor) -> None:
        """Update the parameters, unless the scalar `bad` is 1 rather than 0 on the device."""
        self.found_inf = bad
        self.step()
        self.skipped_steps += bad
        self.skipped_in_a_row = (self.skipped_in_a_row + 1) * bad


@torch.no_grad()
def clip_gradients(groups: list[ParameterGroup], config: OptimConfig) -> Tensor:
    """Shrink the gradients of the groups that are clipped, without waiting for the device.

    Returns:
        Norm of all gradients, those of unclipped groups too, before clipping; scalar.

    """
    covered = _with_gradient(groups, clip=True)
    free = _with_gradient(groups, clip=False)
    norm = get_total_norm(_gradients(covered))
    if config.clip == "global":
        clip_grads_with_norm_(covered, config.clip_norm, norm)
    elif config.clip == "per_tensor" and covered:
        _clip_each(_gradients(covered), config.clip_norm)
    return torch.hypot(norm, get_total_norm(_gradients(free)))


def _check_groups(objective: Objective, groups: list[ParameterGroup]) -> None:
    listed = [id(p) for group in groups for p in group.parameters]
    trainable = {id(p): key for key, p in objective.named_parameters() if p.requires_grad}
    if missing := [key for i, key in trainable.items() if i not in set(listed)]:
        raise ValueError(f"trainable parameters in no group: {', '.join(missing)}")
    if len(listed) != len(trainable):
        raise ValueError("a parameter is in two groups, or a frozen one is in a group")


def _with_gradient(groups: list[ParameterGroup], *, clip: bool) -> list[nn.Parameter]:
    members = [p for group in groups if group.clip == clip for p in group.parameters]
    return [p for p in members if p.grad is not None]


def _gradients(parameters: list[nn.Parameter]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]


def _clip_each(gradients: list[Tensor], max_norm: float) -> None:
    norms = torch.stack([torch.linalg.vector_norm(g) for g in gradients])
    # The small constant is part of the published recipe (torch adds the same to a global norm).
    factors = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    for gradient, factor in zip(gradients, factors.unbind(), strict=True):
        gradient.mul_(factor)
