"""Interfaces of the training loop: objective, loader, batch, and their values."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from midway.models.encoders.base import Encoder
from midway.models.pair_encoders.base import PairEncoder


@dataclass
class StepOutput:
    """Loss and logged scalars of one forward pass."""

    # Not frozen, because Fabric rebuilds it when it converts the outputs of the wrapped module.

    loss: Tensor
    """Scalar to minimise; carries the gradient."""
    logs: dict[str, Tensor] = field(default_factory=dict)
    """Detached scalars by name; the same names at every step and on every rank."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a run at an optimiser step."""

    step: int
    """Steps completed before this one."""
    steps: int
    """Length of the run in steps."""
    steps_per_epoch: float
    samples: int
    """Samples of this step over all ranks and micro-batches."""

    @property
    def fraction(self) -> float:
        """Completed fraction of the run, in [0, 1]."""
        return self.step / self.steps

    @property
    def epoch(self) -> float:
        """Completed passes over the data, as a fractional number."""
        return self.step / self.steps_per_epoch


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters that share their weight decay, clipping and learning rate."""

    name: str
    parameters: list[nn.Parameter]
    weight_decay: float | Literal["scheduled"] = "scheduled"
    """A constant, or the schedule of `OptimConfig`."""
    clip: bool = True
    """If True, gradient clipping covers this group."""
    lr_scale: float = 1.0
    """Factor on the scheduled learning rate, for example of layer decay."""


def parameter_groups(
    module: nn.Module,
    name: str = "all",
    *,
    weight_decay: float | Literal["scheduled"] = "scheduled",
    clip: bool = True,
    lr_scale: float = 1.0,
) -> list[ParameterGroup]:
    """Split the trainable parameters of a module into two groups, with and without weight decay.

    Biases and tensors with at most one axis are not decayed (recipe of DINO and of the paper).

    Args:
        module: Source of the parameters; frozen ones are excluded.
        name: Name of the first group; the second is named ``<name>/no_decay``.
        weight_decay: Weight decay of the first group.
        clip: If True, gradient clipping covers both groups.
        lr_scale: Factor on the learning rate of both groups.

    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for key, parameter in module.named_parameters():
        if parameter.requires_grad:
            # Tokens, position tables and the gains of the DINO head have two or more axes: decayed.
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
    # A frozen module has no groups: the optimiser refuses an empty list of parameters.
    return [group for group in groups if group.parameters]


class Objective(nn.Module, ABC):
    """A module with a loss as its forward pass, for pretraining and readouts alike.

    All trainable parts must run inside `forward`, because DDP wraps only that. The loop seeds
    torch's global generator by (seed, rank, step) before each step, so a resumed run draws the same
    numbers from it; other generators are not seeded.
    """

    def renamed(self, state_dict: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a checkpoint's state dict with the current tensor names."""
        return state_dict

    @abstractmethod
    def forward(self, batch: Any) -> StepOutput:
        """Return the loss of a batch, averaged over its samples."""

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        """Encoders by name ("student", "teacher"), for their descriptions in checkpoints."""
        return {}

    @property
    def pair_encoder(self) -> PairEncoder | None:
        """Pretrained network between two frames, from which optical flow is finetuned.

        Checkpoints describe it. None: flow is finetuned from the whole network (Midway), or with
        fresh dynamics, as in the paper (section 4.1).
        """
        return None

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return groups that contain every trainable parameter once."""
        return parameter_groups(self)

    def health(self, batch: Any) -> dict[str, Tensor]:
        """Return health metrics: scalars by name, the same names on every rank.

        The loop calls it every `run.health_every` steps after the optimiser's, in evaluation mode
        and without gradients. It warns if ``rank_LEVEL``, ``spread_LEVEL``, ``spread_head`` or
        ``dino_entropy`` indicate a collapse.

        Args:
            batch: Last micro-batch of the step.

        """
        return {}

    def starting_health(self, batch: Any) -> dict[str, Tensor]:
        """Return health metrics of the start of a run, such as conditions that its loss needs.

        The loop calls it like `health`, after the first step only, unless `run.health_every` is 0.
        It warns if ``dino_rho`` is below ``dino_rho_needed``.

        Args:
            batch: Last micro-batch of the first step.

        """
        return {}

    def pictures(self, batch: Any) -> dict[str, NDArray[np.uint8]]:
        """Return pictures for TensorBoard by name: RGB bytes (height, width, 3).

        The loop calls it on the first rank after each measurement of `health`, in evaluation mode
        and without gradients; it must not run collective operations.

        Args:
            batch: Last micro-batch of the step.

        """
        return {}

    def before_step(self, progress: Progress) -> None:
        """Set values that depend on the progress of the run, such as scheduled temperatures.

        The loop calls it before the forward passes of a step. Change tensors or attributes that
        are not saved: the first step after a resume calls it too.
        """

    def after_backward(self, progress: Progress) -> None:
        """Edit the complete, unclipped gradients; may set some to None.

        With float16 they are multiplied by the loss scale.
        """

    def after_step(self, progress: Progress) -> None:
        """Update state that depends on the parameters, such as an EMA teacher; without gradients.

        The loop calls it after every optimiser step, skipped ones included: the parameters are then
        unchanged, but statistics collected in `forward` may contain NaN.
        """


class Batch(Protocol):
    """One micro-batch of this rank."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def to(self, device: torch.device) -> Self:
        """Return the batch with its tensors on a device."""
        ...


class Loader(Protocol):
    """Micro-batches by number; a number always denotes the same samples."""

    @property
    def steps_per_epoch(self) -> int:
        """Micro-batches of one rank in one pass over the data."""
        ...

    @property
    def samples_per_step(self) -> int:
        """Samples of a micro-batch of all ranks; every micro-batch has as many."""
        ...

    @property
    def epochs_per_step(self) -> float:
        """Samples of a micro-batch of all ranks as a fraction of a pass over the data."""
        ...

    def batches(self, start_step: int, stop_step: int) -> Iterator[Batch]:
        """Yield the micro-batches of this rank from `start_step` to `stop_step` - 1."""
        ...
