"""Patch embedding, and resampling of learned position tables for any image size."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from midway.nn.images import IMAGENET_MEAN, IMAGENET_STD

Colours = tuple[float, float, float]
"""One value for red, green and blue."""
Resampling = Literal["offset", "plain", "antialias"]
"""Bicubic interpolation of a position table: to the size plus 0.1 (DINO, DINOv2, Midway), to the
size (MAE, transformers), or to the size with antialiasing (DINOv2 with registers, timm)."""


class PatchEmbed(nn.Module):
    """Linear projection of square patches to tokens, row by row.

    Args:
        patch_size: Side of a patch in pixels.
        dim: Width of the tokens.
        mean: Mean of the normalisation that the weights were trained with.
        std: Its standard deviation.

    """

    def __init__(
        self,
        patch_size: int,
        dim: int,
        *,
        mean: Colours = IMAGENET_MEAN,
        std: Colours = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)
        self.recolour = Recolour(mean, std)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch patches dim"]:
        """Return the tokens of the patches of ImageNet-normalised images.

        Height and width are multiples of the patch size.
        """
        # (batch, dim, rows, columns) -> (batch, rows * columns, dim)
        return self.proj(self.recolour(images)).flatten(2).transpose(1, 2)


class Recolour(nn.Module):
    """Conversion of ImageNet-normalised images to another normalisation, without parameters."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Colours, std: Colours) -> None:
        super().__init__()
        self.is_identity = (tuple(mean), tuple(std)) == (IMAGENET_MEAN, IMAGENET_STD)
        imagenet_mean, imagenet_std, mean_, std_ = (
            torch.tensor(values)[:, None, None]
            for values in (IMAGENET_MEAN, IMAGENET_STD, mean, std)
        )
        # (x * imagenet_std + imagenet_mean - mean) / std = x * scale + shift
        self.register_buffer("scale", imagenet_std / std_, persistent=False)
        self.register_buffer("shift", (imagenet_mean - mean_) / std_, persistent=False)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Return the images in the other normalisation."""
        # Without a multiplication by 1, features stay equal bit for bit.
        return images if self.is_identity else images * self.scale + self.shift

    def is_like(self, other: "Recolour") -> bool:
        """Return whether another conversion is the same."""
        return torch.equal(self.scale, other.scale) and torch.equal(self.shift, other.shift)

    def folded_into(
        self, weight: Float[Tensor, "dim 3 patch patch"], bias: Float[Tensor, " dim"]
    ) -> tuple[Float[Tensor, "dim 3 patch patch"], Float[Tensor, " dim"]]:
        """Return weights of a patch embedding that make this conversion superfluous."""
        # w (x * scale + shift) + b = (w * scale) x + (w shift + b)
        return weight * self.scale, bias + (weight * self.shift).sum((1, 2, 3))


def resample_positions(
    table: Float[Tensor, "1 tokens dim"],
    table_grid: tuple[int, int],
    grid: tuple[int, int],
    resampling: Resampling = "offset",
) -> Float[Tensor, "1 resampled dim"]:
    """Resample a position table of one class token and a grid of patches to another grid.

    Args:
        table: Class token first, then the patches row by row.
        table_grid: Rows and columns of patches in `table`.
        grid: Rows and columns of patches in the result.
        resampling: Variant of the interpolation that the weights were trained with.

    """
    if grid == table_grid:
        return table
    rows, columns = table_grid
    image = (
        table[:, 1:].unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
    )  # (1, dim, rows, columns)
    if resampling == "offset":
        # Features of the published network on 96-pixel crops depend on the 0.1.
        scale = ((grid[0] + 0.1) / rows, (grid[1] + 0.1) / columns)
        resampled = F.interpolate(image, scale_factor=scale, mode="bicubic")  # (1, dim, *grid)
    else:
        antialias = resampling == "antialias"
        resampled = F.interpolate(image, grid, mode="bicubic", antialias=antialias)
    return torch.cat([table[:, :1], resampled.flatten(2).transpose(1, 2)], dim=1)
