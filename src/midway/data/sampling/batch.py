"""Base class of batches."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Self

import torch
from torch import Tensor


class Batch:
    """Base class of the inputs of one step; subclasses are dataclasses.

    Its methods apply to tensors in the fields, also inside tuples and dicts. Other values are kept.
    """

    def to(self, device: torch.device) -> Self:
        """Return a copy on `device`; copies from page-locked memory are asynchronous."""
        return self._changed(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """Return a copy in page-locked memory."""
        return self._changed(Tensor.pin_memory)

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Self:
        own: Any = self  # a dataclass
        values = {field.name: getattr(own, field.name) for field in fields(own)}
        return replace(own, **{name: _mapped(value, change) for name, value in values.items()})


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if type(value) is tuple:
        return tuple(_mapped(each, change) for each in value)
    if type(value) is dict:
        return {name: _mapped(each, change) for name, each in value.items()}
    return value
