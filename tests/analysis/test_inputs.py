"""Images are resized to whole patches, and pixels are found in the patch that covers them."""

import pytest
import torch
from torch.nn import functional as F

from midway.analysis.inputs import check_points, fit
from midway.errors import MidwayError
from midway.nn.images import normalise
from tests.models.networks import random_network


def noise(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, height, width), generator=generator, dtype=torch.uint8)


def test_an_image_of_the_networks_size_is_only_normalised():
    images = noise(32, 48)
    fitted = fit(images, random_network())
    torch.testing.assert_close(fitted.images, normalise(images / 255))
    assert (fitted.grid, fitted.patch) == ((4, 6), (8, 8))


@pytest.mark.parametrize(
    ("size", "short_side", "grid"),
    [
        ((64, 128), 0, (4, 8)),  # halved: the network is made for 32 pixels
        ((64, 128), 64, (8, 16)),
        ((50, 33), 0, (6, 4)),  # 48.5 x 32 pixels
        ((16, 16), 0, (4, 4)),  # enlarged
        ((500, 32), 2, (4, 1)),  # never less than a patch
    ],
)
def test_sides_are_the_nearest_whole_patches(size, short_side, grid):
    images = noise(*size)
    fitted = fit(images, random_network(), short_side=short_side)
    assert fitted.grid == grid
    assert fitted.patch == (size[1] / grid[1], size[0] / grid[0])
    pixels = (8 * grid[0], 8 * grid[1])
    expected = F.interpolate(images.float(), pixels, mode="bilinear", antialias=True)
    torch.testing.assert_close(fitted.images, normalise(expected, white=255))


def test_every_pixel_is_in_the_patch_that_nearest_enlarging_gives_it():
    fitted = fit(noise(50, 33), random_network())
    numbers = torch.arange(24.0).view(1, 1, 6, 4)
    enlarged = F.interpolate(numbers, (50, 33), mode="nearest-exact")[0, 0].long()
    points = torch.cartesian_prod(torch.arange(33.0), torch.arange(50.0))
    columns, rows = fitted.cells(points).unbind(1)
    found = torch.empty(50, 33, dtype=torch.long)
    found[points[:, 1].long(), points[:, 0].long()] = rows * 4 + columns
    assert torch.equal(found, enlarged)


@pytest.mark.parametrize("point", [(-0.6, 3), (3, -0.6), (8.6, 3), (3, 5.6), (torch.nan, 3)])
def test_points_reach_half_a_pixel_beyond_the_outermost_middles(point):
    check_points(torch.tensor([(-0.5, -0.5), (8.4, 5.4)]), (6, 9))
    with pytest.raises(MidwayError, match="outside the image of 9 x 6 pixels; give x from 0 to 8"):
        check_points(torch.tensor([(1, 1), point]), (6, 9))
