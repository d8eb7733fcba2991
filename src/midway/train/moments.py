"""Moments of AdamW from a checkpoint, checked before the optimiser takes them.

The fused kernel trusts the sizes of its tensors: a moment with another shape than its parameter
would be written to beyond its end.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq")
MAX_STEP = 2**24
"""Largest step count that float32 represents exactly."""


def checked_moments(
    content: Mapping[str, Any], parameters: Sequence[tuple[str, nn.Parameter]]
) -> dict[int, dict[str, Tensor]]:
    """Return the optimiser's state from a state dict, in the memory layout of the parameters.

    Args:
        content: State dict of AdamW from a checkpoint.
        parameters: Names and parameters in the order of the optimiser.

    Raises:
        ValueError: Keys, shapes, types or ranges are not those of these parameters.

    """
    state = content.get("state")
    if not isinstance(state, dict):
        raise ValueError("no state of an optimiser")
    if strange := [index for index in state if not _is_index(index, len(parameters))]:
        raise ValueError(f"no parameter has the number {strange[0]!r}")
    return {index: _moments(values, *parameters[index]) for index, values in state.items()}


def _is_index(index: object, count: int) -> bool:
    return type(index) is int and 0 <= index < count


def _moments(values: object, name: str, parameter: nn.Parameter) -> dict[str, Tensor]:
    if not isinstance(values, dict) or values.keys() != {"step", *MOMENTS}:
        raise ValueError(f"the state of {name} is not step, {' and '.join(MOMENTS)}")
    step = _checked(values["step"], f"step of {name}", (), torch.float32)
    if not 0 <= float(step) <= MAX_STEP or float(step) % 1:
        raise ValueError(f"step of {name} is {float(step)}")
    shape, dtype = tuple(parameter.shape), parameter.dtype
    moments = {key: _checked(values[key], f"{key} of {name}", shape, dtype) for key in MOMENTS}
    # A negative mean of squares has no root.
    if bool((moments["exp_avg_sq"] < 0).any()):
        raise ValueError(f"exp_avg_sq of {name} has negative values")
    # Copies, because a tensor of a file may repeat its elements or share them with another.
    copies = {key: torch.empty_like(parameter.data).copy_(m) for key, m in moments.items()}
    return {"step": step.clone(), **copies}


def _checked(value: object, what: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
        raise ValueError(f"{what} is not a tensor with values")
    if tuple(value.shape) != shape or value.dtype != dtype:
        raise ValueError(
            f"{what} has shape {tuple(value.shape)} and type {value.dtype} instead of {shape} and "
            f"{dtype}"
        )
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"{what} is not finite")
    return value
