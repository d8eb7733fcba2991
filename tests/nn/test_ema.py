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


def test_the_update_is_a_linear_interpolation_bit_for_bit() -> None:
    teacher, student = [torch.randn(64, 3), torch.randn(7)], [torch.randn(64, 3), torch.randn(7)]
    wanted = [torch.lerp(t, s, 1 - 0.996) for t, s in zip(teacher, student, strict=True)]
    update_ema(teacher, student, 0.996)
    assert all(map(torch.equal, teacher, wanted))
