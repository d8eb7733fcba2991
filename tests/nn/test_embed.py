import pytest
import torch

from midway.nn.embed import PatchEmbed, Recolour, resample_positions
from midway.nn.images import IMAGENET_MEAN, IMAGENET_STD, normalise

MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)


def test_patches_come_row_by_row_as_a_matrix_product_gives_them() -> None:
    embed = PatchEmbed(4, 6)
    images = torch.randn(2, 3, 8, 12)
    patches = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(2, 6, 48)
    expected = patches @ embed.proj.weight.flatten(1).T + embed.proj.bias
    torch.testing.assert_close(embed(images), expected, atol=1e-5, rtol=1e-5)


def test_the_tables_own_grid_is_left_alone() -> None:
    table = torch.randn(1, 7, 4)
    assert resample_positions(table, (2, 3), (2, 3)) is table


def test_a_linear_ramp_stays_a_ramp_along_each_axis() -> None:
    rows = torch.arange(8.0).repeat_interleave(8).view(1, 64, 1)
    table = torch.cat([torch.full((1, 1, 1), -1.0), rows], dim=1)
    out = resample_positions(table, (8, 8), (4, 16))
    assert out[0, 0, 0] == -1
    grid = out[0, 1:, 0].view(4, 16)
    torch.testing.assert_close(grid, grid[:, :1].expand(4, 16))
    # The scale is (4 + 0.1) / 8, not 1 / 2: that is what sets the published network apart.
    expected = (torch.arange(4) + 0.5) * 8 / 4.1 - 0.5
    torch.testing.assert_close(grid[1:3, 0], expected[1:3], atol=0.05, rtol=0)


def test_images_are_converted_to_the_normalisation_of_the_weights() -> None:
    pixels = torch.rand(2, 3, 8, 12)
    own = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(Recolour(MEAN, STD)(normalise(pixels)), own)
    images = normalise(pixels)
    assert Recolour(IMAGENET_MEAN, IMAGENET_STD)(images) is images


def test_a_conversion_folded_into_the_weights_gives_the_same_patches() -> None:
    images = torch.randn(2, 3, 8, 12)
    embed, plain = PatchEmbed(4, 6, mean=MEAN, std=STD), PatchEmbed(4, 6)
    assert [*embed.state_dict()] == ["proj.weight", "proj.bias"]
    assert not embed.recolour.is_like(plain.recolour)
    weight, bias = embed.recolour.folded_into(embed.proj.weight, embed.proj.bias)
    plain.load_state_dict({"proj.weight": weight, "proj.bias": bias})
    torch.testing.assert_close(plain(images), embed(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("resampling", ["plain", "antialias"])
def test_without_the_offset_a_ramp_is_resampled_at_half_its_size(resampling) -> None:
    rows = torch.arange(8.0).repeat_interleave(8).view(1, 64, 1)
    out = resample_positions(torch.cat([rows[:, :1], rows], 1), (8, 8), (4, 4), resampling)
    grid = out[0, 1:, 0].view(4, 4)
    torch.testing.assert_close(grid[1:3, 0], torch.tensor([2.5, 4.5]), atol=0.05, rtol=0)
    # Antialiasing takes more rows into account at the border.
    assert (grid[0, 0] - 0.5 > 0.01) == (resampling == "antialias")
