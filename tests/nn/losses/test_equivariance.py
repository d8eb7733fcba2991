"""The dense loss is 0 for features that follow the scene, and only in the consistent order."""

import pytest
import torch
from torch.nn import functional as F

from midway.nn.losses.equivariance import equivariance_loss, squared_distance
from midway.nn.warp import AffineRange, AffineView
from tests.nn.test_warp import CPU, scene

SIZE = (64, 80)
RANGE = AffineRange(degrees=10.0, scale=(0.9, 1.1), p_flip=0.5)


def moving(points: torch.Tensor, *, back: bool = False) -> torch.Tensor:
    """Motion of the scene: a rotation by 0.1 with a shift, and its inverse."""
    angle = torch.tensor(-0.1 if back else 0.1)
    turn = torch.stack(
        [torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]
    )
    centre, shift = torch.tensor([40.0, 32.0]), torch.tensor([5.0, -3.0])
    if back:
        return (points - centre - shift) @ turn.T + centre
    return (points - centre) @ turn.T + centre + shift


def example(batch: int = 6):
    """Source and target of a scene, their flow, and affine views of both."""
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    grid = torch.stack([x, y], dim=-1).float()
    # The target shows at a point what the source shows at the point from which it came.
    source, target = scene(grid), scene(moving(grid, back=True))
    ahead, back = moving(grid) - grid, moving(grid, back=True) - grid
    flows = [each.permute(2, 0, 1)[None].repeat(batch, 1, 1, 1) for each in (ahead, back)]
    views = [AffineView.draw(RANGE, batch, SIZE, CPU) for _ in range(2)]
    frames = [each.repeat(batch, 1, 1, 1) for each in (source, target)]
    return frames, flows, views


def loss_of(order: str, *, every: int = 1, flow: float = 1.0):
    (source, target), (ahead, back), (own, others) = example()
    # An equivariant network: it returns its input, so that what it sees of a point never changes.
    return equivariance_loss(
        own.render(source),
        others.render(target),
        own=own,
        others=others,
        forward=flow * ahead,
        backward=flow * back,
        order=order,
        every=every,
    )


def test_an_equivariant_network_has_no_loss_in_the_consistent_order():
    loss, share = loss_of("consistent")
    assert loss < 1e-3
    assert 0.5 < share < 0.95
    sparse, sparse_share = loss_of("consistent", every=4)
    assert sparse < 1e-3
    assert abs(sparse_share - share) < 0.05


def test_the_released_order_or_no_flow_leave_a_loss():
    consistent = loss_of("consistent")[0]
    assert loss_of("released")[0] > 10 * consistent
    assert loss_of("consistent", flow=0.0)[0] > 30 * consistent


def test_both_orders_agree_without_affine_views():
    (source, target), (ahead, back), _ = example()
    plain = AffineRange(degrees=0.0, scale=(1.0, 1.0), p_flip=0.5)
    own, others = (AffineView.draw(plain, len(source), SIZE, CPU) for _ in range(2))
    losses = [
        equivariance_loss(
            own.render(source),
            others.render(target),
            own=own,
            others=others,
            forward=ahead,
            backward=back,
            order=order,
        )[0]
        for order in ("consistent", "released")
    ]
    torch.testing.assert_close(*losses)
    assert losses[0] < 1e-3


def test_it_is_the_mean_over_images_of_means_over_their_points():
    """Against a slow loop, with views that change nothing."""
    torch.manual_seed(1)
    predicted, seen = torch.randn(2, 2, 4, 5, 6).unbind(0)
    forward = torch.zeros(2, 2, 5, 6)
    forward[0, 0], forward[1, 1] = 2.0, -1.0
    still = AffineView(torch.zeros(2), torch.ones(2), torch.ones(2), (5, 6))
    loss, share = equivariance_loss(
        predicted, seen, own=still, others=still, forward=forward, backward=-forward
    )
    total, count = 0.0, 0
    for image, (u, v) in enumerate(((2, 0), (0, -1))):
        found = []
        for row in range(5):
            for column in range(6):
                if 0 <= column + u < 6 and 0 <= row + v < 5:
                    one, other = (
                        predicted[image, :, row, column],
                        seen[image, :, row + v, column + u],
                    )
                    found.append(
                        (F.normalize(one, dim=0) - F.normalize(other, dim=0)).square().sum()
                    )
        total, count = total + sum(found) / len(found) / 2, count + len(found)
    torch.testing.assert_close(loss, total)
    assert share.item() == pytest.approx(count / 60)


def test_the_student_gets_a_gradient_and_the_teacher_none():
    predicted, seen = torch.randn(2, 1, 4, 8, 8, requires_grad=True).unbind(0)
    predicted.retain_grad()
    seen.retain_grad()
    still = AffineView(torch.zeros(1), torch.ones(1), torch.ones(1), (8, 8))
    zero = torch.zeros(1, 2, 8, 8)
    loss, _ = equivariance_loss(
        predicted, seen, own=still, others=still, forward=zero, backward=zero
    )
    loss.backward()
    assert predicted.grad is not None
    assert seen.grad is None


def test_without_a_point_that_counts_the_loss_is_0():
    maps = torch.randn(1, 4, 8, 8)
    still = AffineView(torch.zeros(1), torch.ones(1), torch.ones(1), (8, 8))
    away = torch.full((1, 2, 8, 8), 1e4)
    loss, share = equivariance_loss(
        maps, maps, own=still, others=still, forward=away, backward=away
    )
    assert loss == share == 0


def test_opposite_directions_have_a_distance_of_4():
    x = torch.tensor([[3.0, 0.0]])
    torch.testing.assert_close(squared_distance(x, -2 * x), torch.tensor([4.0]))
    torch.testing.assert_close(squared_distance(x, torch.tensor([[0.0, 1.0]])), torch.tensor([2.0]))
