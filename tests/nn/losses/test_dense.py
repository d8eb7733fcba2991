import pytest
import torch
from torch.nn import functional as F

from midway.nn.losses.dense import mean_or_sum, normalized_mse


def test_it_equals_the_squared_distance_of_unit_vectors() -> None:
    x, y = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    distance = (F.normalize(x, dim=-1) - F.normalize(y, dim=-1)).square().sum(-1).mean()
    torch.testing.assert_close(normalized_mse(x, y), distance)


def test_lengths_do_not_matter_and_equal_directions_cost_nothing() -> None:
    x = torch.randn(2, 5, 8)
    assert normalized_mse(3 * x, x).abs() < 1e-6


def test_no_gradient_reaches_the_target() -> None:
    x, y = torch.randn(2, 5, 8, requires_grad=True), torch.randn(2, 5, 8, requires_grad=True)
    normalized_mse(x, y).backward()
    assert x.grad is not None
    assert y.grad is None


def test_losses_of_levels_are_summed_or_averaged() -> None:
    losses = [torch.tensor(value) for value in (0.5, 1.0, 3.0)]
    assert mean_or_sum(losses, "sum").item() == pytest.approx(4.5)
    assert mean_or_sum(losses, "mean").item() == pytest.approx(1.5)
