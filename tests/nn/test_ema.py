import pytest
import torch

from midway.nn.ema import update_ema


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_each_tensor_moves_by_one_less_the_momentum(momentum: float) -> None:
    teacher, student = [torch.randn(3), torch.randn(2, 2)], [torch.randn(3), torch.randn(2, 2)]
    wanted = [momentum * t + (1 - momentum) * s for t, s in zip(teacher, student, strict=True)]
    update_ema(teacher, student, momentum)
    for found, value in zip(teacher, wanted, strict=True):
        torch.testing.assert_close(found, value)
