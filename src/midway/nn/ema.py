"""Exponential moving average of parameters: how the teacher follows the student."""

from collections.abc import Iterable

from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


def update_ema(teacher: Iterable[Tensor], student: Iterable[Tensor], momentum: float) -> None:
    """Move each tensor of `teacher` towards the student's: t = momentum t + (1 - momentum) s.

    Args:
        teacher: Changed in place, all in one pass.
        student: As many tensors of the same shapes, in the same order.
        momentum: In [0, 1]; 1 keeps the teacher, 0 copies the student.

    """
    values = [value.detach() for value in student]
    get_ema_multi_avg_fn(momentum)(list(teacher), values, 0)
