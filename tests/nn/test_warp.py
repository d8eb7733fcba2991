"""Points, flow, occlusion and affine views on scenes whose motion is known."""

import math

import pytest
import torch

from midway.data.synthetic.world import World, WorldConfig
from midway.errors import MidwayError
from midway.nn.warp import (
    AffineRange,
    AffineView,
    follow,
    is_inside,
    is_visible,
    known,
    pixels,
    sample,
)

SIZE = (40, 56)
CPU = torch.device("cpu")


def scene(points: torch.Tensor) -> torch.Tensor:
    """Smooth pattern at points (..., 2), shape (1, 3, ...)."""
    x, y = points.unbind(-1)
    waves = [torch.sin(0.21 * x + 0.13 * y), torch.cos(0.17 * x - 0.2 * y), torch.sin(0.1 * y)]
    return torch.stack(waves)[None]


def view(degrees: float, scale: float, *, flip: bool) -> AffineView:
    side = torch.tensor([-1.0 if flip else 1.0])
    return AffineView(torch.tensor([math.radians(degrees)]), torch.tensor([scale]), side, SIZE)


def test_points_are_the_centres_of_pixels_and_of_blocks():
    assert pixels((2, 3), CPU).tolist() == [[[0, 0], [1, 0], [2, 0]], [[0, 1], [1, 1], [2, 1]]]
    assert pixels((4, 6), CPU, every=4).tolist() == [[[1.5, 1.5]]]


def test_a_map_is_sampled_at_the_places_that_its_cells_describe():
    image = torch.rand(1, 2, *SIZE)
    grid = pixels(SIZE, CPU)[None]
    torch.testing.assert_close(sample(image, grid, SIZE), image)
    # Cells of 8 x 8 pixels have their centres at 3.5, 11.5, ...
    cells = torch.rand(1, 2, SIZE[0] // 8, SIZE[1] // 8)
    centres = pixels(SIZE, CPU, every=8)[None]
    torch.testing.assert_close(sample(cells, centres, SIZE), cells)
    # Upsampling is the same at every pixel.
    fine = torch.nn.functional.interpolate(cells, SIZE, mode="bilinear")
    torch.testing.assert_close(sample(cells, grid, SIZE), fine)


@pytest.mark.parametrize("flip", [False, True])
def test_an_affine_view_shows_the_scene_where_it_says(flip: bool):
    made = view(9.0, 1.1, flip=flip)
    grid = pixels(SIZE, CPU)[None]
    shown = made.render(scene(grid[0]))
    points = made.to_image(grid)
    inside = is_inside(points, SIZE)
    assert 0.7 < inside.float().mean() < 1
    assert (shown - scene(points[0])).abs()[:, :, inside[0]].max() < 0.02
    assert (shown * ~inside).abs().max() == 0
    torch.testing.assert_close(made.to_view(points), grid.float(), rtol=0, atol=1e-4)
    # Magnification by 1.1 moves points apart.
    moved = made.to_view(torch.tensor([[[[20.0, 20.0], [21.0, 20.0]]]]))
    assert (moved[0, 0, 0] - moved[0, 0, 1]).norm().item() == pytest.approx(1.1, abs=1e-5)


def test_views_are_drawn_in_their_ranges():
    torch.manual_seed(0)
    ranges = AffineRange(degrees=7.0, scale=(0.8, 1.3), p_flip=0.25)
    drawn = AffineView.draw(ranges, 4000, SIZE, CPU)
    degrees = drawn.angle.rad2deg()
    assert -7 <= degrees.min() < -6.9
    assert 6.9 < degrees.max() <= 7
    assert 0.8 <= drawn.scale.min() < 0.81
    assert 1.29 < drawn.scale.max() <= 1.3
    # Four standard errors of a share of 1/4 over 4,000 draws.
    assert (drawn.side == -1).float().mean().item() == pytest.approx(0.25, abs=0.028)


@pytest.mark.parametrize("bad", [{"degrees": 200.0}, {"scale": (1.2, 0.9)}, {"p_flip": 1.5}])
def test_ranges_that_cannot_be_are_refused(bad: dict):
    with pytest.raises(MidwayError, match=rf"affine\.{next(iter(bad))} = "):
        AffineRange(**bad)


def test_flow_and_occlusion_of_a_world_with_moving_objects():
    world = World(WorldConfig(height=96, width=128, object_speed=30.0, camera_speed=10.0), 3)
    forward, backward = (world.flow(0.0, 0.4), world.flow(0.4, 0.0))
    ahead, back = (torch.from_numpy(m.flow).permute(2, 0, 1)[None] for m in (forward, backward))
    visible = is_visible(ahead, back)[0]
    truth = ~torch.from_numpy(forward.occluded)
    # The tolerance of the check admits points that a slow object covers.
    assert (visible == truth).float().mean() > 0.93
    assert visible[truth].float().mean() > 0.95
    images = [torch.from_numpy(world.frame(t).image).permute(2, 0, 1)[None] / 255 for t in (0, 0.4)]
    ends = follow(pixels((96, 128), CPU)[None], ahead, (96, 128))
    error = (sample(images[1], ends, (96, 128)) - images[0]).abs().mean(1)[0]
    still = (images[1] - images[0]).abs().mean(1)[0]
    assert error[visible].mean() < 0.3 * still[visible].mean()


def test_a_planted_occluder_and_the_border_are_not_visible():
    # The right half moves 6 pixels to the left, over the left half, which stands still.
    ahead, back = torch.zeros(2, 1, 2, 8, 32).unbind(0)
    ahead[:, 0, :, 16:] = -6.0
    back[:, 0, :, 10:26] = 6.0
    visible = is_visible(ahead, back)[0]
    assert not visible[:, 10:16].any()
    assert visible[:, :10].all()
    assert visible[:, 17:].all()
    leaving = torch.full((1, 2, 8, 32), 3.0)
    visible = is_visible(leaving, -leaving)[0]
    assert visible[:5, :29].all()
    assert not visible[5:].any()
    assert not visible[:, 29:].any()
    blocks = is_visible(leaving, -leaving, every=4)
    assert blocks.tolist() == [[[True] * 7 + [False], [False] * 8]]


def test_unknown_flow_is_never_visible():
    ahead = torch.zeros(1, 2, 8, 8)
    back = torch.zeros(1, 2, 8, 8)
    ahead[0, 0, 2, 3] = torch.inf
    back[0, :, 5, 5] = torch.nan
    visible = is_visible(known(ahead), known(back))[0]
    assert not visible[2, 3]
    assert not visible[5, 5]
    assert visible.sum() == 62
