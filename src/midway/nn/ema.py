"""Exponential moving average of parameters: how the teacher follows the student."""

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def update_ema(teacher: Iterable[Tensor], student: Iterable[Tensor], momentum: float) -> None:
    """Move each tensor of `teacher` towards the student's: t = momentum t + (1 - momentum) s.

    Args:
        teacher: Changed in place, all in one pass.
        student: As many tensors of the same shapes, in the same order.
        momentum: 1 keeps the teacher, 0 copies the student.

    """
    averages, values = list(teacher), [value.detach() for value in student]
    torch._foreach_lerp_(averages, values, 1 - momentum)  # pyright: ignore[reportPrivateImportUsage]
