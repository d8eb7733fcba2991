"""The choice between flows by the images alone takes what explains them, else no motion."""

import torch
from torch import Tensor

from midway.models.flow.explained import MARGIN, OUTSIDE, WINDOW, best_explained

SIZE = (64, 96)


def constant(u: float, v: float = 0.0) -> Tensor:
    return torch.tensor([u, v])[None, :, None, None].expand(1, 2, *SIZE)


def noise(seed: int) -> Tensor:
    return torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def test_the_true_flow_is_chosen_among_wrong_ones_in_any_order() -> None:
    source = noise(0)
    target = source.roll(5, dims=3)
    for flows in ([constant(5), constant(-5)], [constant(2), constant(5), constant(5, 3)]):
        found = best_explained(source, target, flows)
        inner = found[..., WINDOW // 2 : -WINDOW // 2]
        assert torch.equal(inner, constant(5)[..., WINDOW // 2 : -WINDOW // 2])


def test_flow_stays_zero_where_no_candidate_explains_more() -> None:
    """Of two unrelated images, every flow explains as little as none."""
    source, target = 0.3 * noise(0), 0.3 * noise(1)
    assert not best_explained(source, target, [constant(3), constant(0, -4)]).any()


def test_a_flow_that_is_little_better_than_no_motion_is_not_taken() -> None:
    """The difference under the flow is a constant share of the one without motion."""
    source = torch.zeros(1, 3, *SIZE)
    target = torch.full_like(source, 0.1)
    for share, taken in ((0.99 / MARGIN, True), (1.01 / MARGIN, False)):
        target[..., 48:] = 0.1 * share
        found = best_explained(source, target, [constant(48)])
        assert bool(found[..., : 48 - WINDOW // 2 - 1].any()) == taken


def test_pixels_whose_flow_leaves_the_target_count_as_different() -> None:
    source, target = torch.zeros(1, 3, *SIZE), torch.full((1, 3, *SIZE), OUTSIDE / 2)
    # The border is repeated outside the target, and would explain the source exactly.
    target[..., -1] = 0
    assert not best_explained(source, target, [constant(SIZE[1])]).any()
