"""AdamW with its schedules and gradient clipping; steps that are not finite are skipped."""

from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from midway.config import require
from midway.train.moments import checked_moments
from midway.train.objective import Objective, ParameterGroup, Progress
from midway.train.schedules import cosine, warmup_cosine, warmup_poly


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW and its schedules; the defaults are the paper's recipe."""

    lr: float = 5e-4
    """Peak learning rate; per 256 samples of a step if `scale_lr`."""
    scale_lr: bool = True
    """If True, the peak is lr * samples / 256, for the samples of a step over all ranks and
    micro-batches."""
    final_lr: float = 1e-6
    """Learning rate at the end of the run; per 256 samples of a step if `scale_final_lr`."""
    scale_final_lr: bool = False
    """If True, the final rate is final_lr * samples / 256, as in VideoMAE's recipe; else it is
    independent of the batch size."""
    warmup_epochs: float = 10.0
    """Epochs over which the learning rate rises from 0."""
    warmup_steps: int = 0
    """Length of the warm-up in optimiser steps; if 0, `warmup_epochs` determines it."""
    schedule: Literal["cosine", "poly"] = "cosine"
    """Decay after the warm-up: half a cosine, or mmsegmentation's polynomial decay."""
    power: float = 1.0
    """Exponent of the poly schedule; 1 is linear."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.04
    """Weight decay at the beginning of the run."""
    final_weight_decay: float = 0.4
    """Weight decay at the end of the run, reached along a cosine."""
    clip: Literal["global", "per_tensor", "none"] = "global"
    """Clip by one norm over all gradients, or each tensor by its norm as the release does."""
    clip_norm: float = 3.0
    """Largest norm after clipping."""

    def __post_init__(self) -> None:
        rules = {
            f"lr = {self.lr}; give a rate above 0": 0 < self.lr < inf,
            f"betas = {self.betas}; give two numbers from 0 to below 1": (
                all(0 <= beta < 1 for beta in self.betas)
            ),
            f"clip_norm = {self.clip_norm}; give a norm above 0": 0 < self.clip_norm < inf,
            f"power = {self.power}; give a number above 0": 0 < self.power < inf,
            f"final_lr = {self.final_lr}: the rate would rise; give no more than lr = {self.lr}": (
                self.scale_lr != self.scale_final_lr or self.final_lr <= self.lr
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


def warmup_length(config: OptimConfig, steps_per_epoch: float) -> int:
    """Return the length of the warm-up in whole optimiser steps."""
    return config.warmup_steps or round(config.warmup_epochs * steps_per_epoch)


def check_falling(config: OptimConfig, samples: int) -> None:
    """Check that the learning rate falls after the warm-up.

    Args:
        config: Schedules.
        samples: Samples of a step over all ranks and micro-batches.

    Raises:
        MidwayError: The rate at the end is above the peak.

    """
    peak, final = _peak(config, samples), _final(config, samples)
    scaled = f" * samples / 256 = {final:g}" if config.scale_final_lr else ""
    rule = (
        f"final_lr = {config.final_lr}{scaled}: the rate would rise; give no more than "
        f"lr{' * samples / 256' if config.scale_lr else ''} = {peak:g}, the peak for {samples} "
        "samples per step"
    )
    require("optim", {rule: final <= peak})


def _peak(config: OptimConfig, samples: int) -> float:
    return config.lr * samples / 256 if config.scale_lr else config.lr


def _final(config: OptimConfig, samples: int) -> float:
    return config.final_lr * samples / 256 if config.scale_final_lr else config.final_lr


def rates_at(progress: Progress, config: OptimConfig) -> Rates:
    """Return the rates of the step at `progress`."""
    shape = partial(warmup_poly, power=config.power) if config.schedule == "poly" else warmup_cosine
    return Rates(
        lr=shape(
            progress.step,
            progress.steps,
            warmup_steps=warmup_length(config, progress.steps_per_epoch),
            peak=_peak(config, progress.samples),
            final=_final(config, progress.samples),
        ),
        weight_decay=cosine(progress.fraction, config.weight_decay, config.final_weight_decay),
    )


class AdamW(torch.optim.AdamW):
    """Fused AdamW over parameter groups that can skip a step without a host synchronisation.

    A skipped step changes neither the parameters nor the moments.

    Raises:
        ValueError: A trainable parameter of the objective is in no group, or in two.

    """

    found_inf: Tensor
    """Flag that the fused kernel reads on the device: 1 to skip the step."""
    skipped_steps: Tensor
    """Number of skipped steps; scalar on the device."""
    skipped_in_a_row: Tensor
    """Number of consecutive skipped steps; scalar on the device."""

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
        names = {id(parameter): name for name, parameter in objective.named_parameters()}
        self._parameters = [(names[id(p)], p) for group in groups for p in group.parameters]
        device = groups[0].parameters[0].device
        self.skipped_steps = torch.zeros((), device=device)
        self.skipped_in_a_row = torch.zeros((), device=device)

    def set_rates(self, rates: Rates) -> None:
        """Set learning rate and weight decay of every group for the next step."""
        for group in self.param_groups:
            group["lr"] = rates.lr * group["lr_scale"]
            if group["scheduled_decay"]:
                group["weight_decay"] = rates.weight_decay

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the moments; rates, betas and weight decay remain those of the configuration.

        Raises:
            ValueError: The moments are not those of the parameters, or their groups differ.

        """
        own = super().state_dict()["param_groups"]
        if _members(state_dict.get("param_groups")) != _members(own):
            raise ValueError("its groups of parameters are others")
        state = checked_moments(state_dict, self._parameters)
        # With its own groups: torch would take over the rates of the file.
        super().load_state_dict({"state": state, "param_groups": own})

    def step_unless(self, bad: Tensor) -> None:
        """Update the parameters, unless `bad`, a scalar 0 or 1 on the device, is 1."""
        # The attribute by which GradScaler makes the fused kernel skip a step.
        self.found_inf = bad
        self.step()
        self.skipped_steps += bad
        # Back to 0 after a step that is finite.
        self.skipped_in_a_row = (self.skipped_in_a_row + 1) * bad


@torch.no_grad()
def clip_gradients(groups: list[ParameterGroup], config: OptimConfig) -> Tensor:
    """Shrink the gradients of the groups that are clipped, without waiting for the device.

    Returns:
        Norm of all gradients, those of unclipped groups too, before clipping; scalar.

    """
    # Norms stay on the device: the host must not wait for the backward pass.
    covered = _with_gradient(groups, clip=True)
    free = _with_gradient(groups, clip=False)
    norm = get_total_norm(_gradients(covered))
    if config.clip == "global":
        clip_grads_with_norm_(covered, config.clip_norm, norm)
    elif config.clip == "per_tensor" and covered:
        _clip_each(_gradients(covered), config.clip_norm)
    # Norms of disjoint groups add up as squares.
    return torch.hypot(norm, get_total_norm(_gradients(free)))


def _check_groups(objective: Objective, groups: list[ParameterGroup]) -> None:
    # By identity: parameters compare elementwise.
    listed = [id(p) for group in groups for p in group.parameters]
    trainable = {id(p): key for key, p in objective.named_parameters() if p.requires_grad}
    if missing := [key for i, key in trainable.items() if i not in set(listed)]:
        raise ValueError(f"trainable parameters in no group: {', '.join(missing)}")
    if len(listed) != len(trainable):
        raise ValueError("a parameter is in two groups, or a frozen one is in a group")


def _members(groups: object) -> list[object] | None:
    """Return the parameter numbers of each group of a state dict; None if it has no groups."""
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        return None
    return [group.get("params") for group in groups]


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
