"""What the training loop asks of anything that can be trained."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor, nn

from midway.models.encoders.base import Encoder


@dataclass
class StepOutput:
    """What one forward pass gives: a loss to minimise and scalars to look at.

    It is not frozen because the engine copies it on its way out of the wrapped module.
    """

    loss: Tensor
    """Scalar that carries the gradient."""
    logs: dict[str, Tensor] = field(default_factory=dict)
    """Detached scalars; the same keys at every step and on every rank."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a run stands at an optimiser step."""

    step: int
    """Steps completed before this one."""
    steps: int
    """Length of the run."""
    steps_per_epoch: float
    samples: int
    """Samples of this step, over all ranks and micro-batches."""

    @property
    def progress(self) -> float:
        """Share of the run that is completed, in [0, 1]."""
        return self.step / self.steps

    @property
    def epoch(self) -> float:
        """Passes over the data that are completed, with their fraction."""
        return self.step / self.steps_per_epoch


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters that share their weight decay, clipping and learning rate."""

    name: str
    parameters: list[nn.Parameter]
    weight_decay: float | Literal["scheduled"] = "scheduled"
    """A constant, or the schedule of the optimiser's config."""
    clip: bool = True
    """Whether gradient clipping covers this group."""
    lr_scale: float = 1.0
    """Factor on the scheduled learning rate, as layer decay wants it."""


def parameter_groups(
    module: nn.Module,
    name: str = "all",
    *,
    weight_decay: float | Literal["scheduled"] = "scheduled",
    clip: bool = True,
    lr_scale: float = 1.0,
) -> list[ParameterGroup]:
    """The trainable parameters of a module as two groups: decayed, and not decayed.

    Biases and tensors with at most one axis are not decayed (recipe of DINO and of the paper).

    Args:
        module: Where the parameters are taken from; frozen ones are left out.
        name: Name of the first group; the second is called ``<name>/no_decay``.
        weight_decay: Of the first group.
        clip: Of both groups.
        lr_scale: Of both groups.

    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for key, parameter in module.named_parameters():
        if parameter.requires_grad:
            is_free = parameter.ndim <= 1 or key.rpartition(".")[2] == "bias"
            (free if is_free else decayed).append(parameter)
    groups = [
        ParameterGroup(
            name=name,
            parameters=decayed,
            weight_decay=weight_decay,
            clip=clip,
            lr_scale=lr_scale,
        ),
        ParameterGroup(
            name=f"{name}/no_decay", parameters=free, weight_decay=0, clip=clip, lr_scale=lr_scale
        ),
    ]
    return [group for group in groups if group.parameters]


class Objective(nn.Module, ABC):
    """A module whose forward pass is a loss; pretraining and readouts alike.

    Everything trainable runs inside `forward`, so that one wrapper is enough to train on many
    devices. `torch.manual_seed` has been called for this (seed, rank, step) before each step, so
    draws from torch's global generator are repeated exactly when a run is resumed; other
    generators are not.
    """

    @abstractmethod
    def forward(self, batch: Any) -> StepOutput:
        """The loss of one batch, averaged over its samples."""

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        """Encoders by name ("student", "teacher"), which checkpoints describe."""
        return {}

    def parameter_groups(self) -> list[ParameterGroup]:
        """Every trainable parameter once."""
        return parameter_groups(self)

    def health(self, batch: Any) -> dict[str, Tensor]:
        """Scalars that tell whether training goes well, by name; the same on every rank.

        Called every some steps after the optimiser's, in evaluation mode and without gradients.
        Features called ``rank_LEVEL`` and ``spread_LEVEL`` are watched for collapse.

        Args:
            batch: The last one that was trained on.

        """
        return {}

    def after_backward(self, position: Position) -> None:
        """Called with the gradients complete but not yet clipped; may set some to None."""

    def after_step(self, position: Position) -> None:
        """Called without gradients after the optimiser's step, to move an averaged teacher.

        Also called when the step was left out because it was not finite: the parameters are
        then the old ones, but whatever `forward` has seen may hold NaN.
        """


class Batch(Protocol):
    """What a loader gives: one micro-batch of this rank."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def to(self, device: torch.device) -> Self:
        """The same batch with its tensors on a device."""
        ...


class Loader(Protocol):
    """Batches by number; the same number gives the same samples whenever it is asked for."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one rank in one pass over the data."""
        ...

    def batches(self, start_step: int, stop_step: int) -> Iterator[Batch]:
        """The batches of this rank from `start_step` up to, not including, `stop_step`."""
        ...
