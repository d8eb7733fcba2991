"""Exponential moving average (EMA) of parameters, for teachers."""

from collections.abc import Iterable

from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


def update_ema(teacher: Iterable[Tensor], student: Iterable[Tensor], momentum: float) -> None:
    """Update each tensor of the teacher in place: t = momentum * t + (1 - momentum) * s.

    Args:
        teacher: Tensors to update.
        student: Tensors of the same number, shapes and order.
        momentum: In [0, 1]; 1 keeps the teacher, 0 copies the student.

    """
    # One fused pass over all tensors; the number of averages, here 0, is not used by it.
    values = [value.detach() for value in student]
    get_ema_multi_avg_fn(momentum)(list(teacher), values, 0)
