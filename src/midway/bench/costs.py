"""Costs of a method's training sample, counted on shapes without computing anything."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from midway.data.views.render import example_clips
from midway.methods.base import MethodConfig, build_method

SAMPLES = 2
"""Samples of the counted batch; one is too few for the batch norm of a vector."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Sizes of a method, and costs of one sample."""

    encoder_parameters: int
    """Parameters of the student's encoder."""
    other_parameters: int
    """Trainable parameters of its heads, decoders and dynamics."""
    multiply_adds: float
    """Multiply-adds of the forward passes of all networks, EMA teacher included."""
    activation_bytes: float
    """Memory in float32 that the forward pass keeps for the backward pass."""


def costs_of(config: MethodConfig) -> Costs:
    """Count the costs of one sample of a method.

    Work that the method skips is not counted, such as tokens of the last block that nothing reads.
    Fused attention keeps less memory than is counted here, mixed precision about half.
    """
    with torch.device("meta"):
        method = build_method(config)
        clips = example_clips(method.spec, SAMPLES)
    saved: dict[int, int] = {}
    own = {_storage(tensor) for tensor in method.state_dict().values()}

    def count(tensor: Tensor) -> Tensor:
        # By storage, because operations save several views of one tensor.
        if (storage := _storage(tensor)) not in own:
            saved[storage] = tensor.untyped_storage().nbytes()
            kept.append(tensor)
        return tensor

    # Kept alive, so that no number of a storage is given twice.
    kept: list[Tensor] = []
    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(count, lambda x: x):
        method.loss(clips)
    encoder = _trainable(method.encoders["student"])
    return Costs(
        encoder_parameters=encoder,
        other_parameters=_trainable(method) - encoder,
        multiply_adds=counter.get_total_flops() / 2 / SAMPLES,
        activation_bytes=sum(saved.values()) / SAMPLES,
    )


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _trainable(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
