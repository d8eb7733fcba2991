"""Patch embedding, and resampling of learned position tables for any image size."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class PatchEmbed(nn.Module):
    """Linear projection of square patches to tokens, row by row."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch patches dim"]:
        """Return the tokens of the patches; height and width are multiples of the patch size."""
        # (batch, dim, rows, columns) -> (batch, rows * columns, dim)
        return self.proj(images).flatten(2).transpose(1, 2)


def resample_positions(
    table: Float[Tensor, "1 tokens dim"], table_grid: tuple[int, int], grid: tuple[int, int]
) -> Float[Tensor, "1 resampled dim"]:
    """Resample a position table of one class token and a grid of patches to another grid.

    The interpolation is bicubic without antialiasing, as in DINO and in the published network.

    Args:
        table: Class token first, then the patches row by row.
        table_grid: Rows and columns of patches in `table`.
        grid: Rows and columns of patches in the result.

    """
    if grid == table_grid:
        return table
    rows, columns = table_grid
    image = (
        table[:, 1:].unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
    )  # (1, dim, rows, columns)
    # Features of the published network on 96-pixel crops depend on the 0.1.
    scale = ((grid[0] + 0.1) / rows, (grid[1] + 0.1) / columns)
    resampled = F.interpolate(image, scale_factor=scale, mode="bicubic")  # (1, dim, *grid)
    return torch.cat([table[:, :1], resampled.flatten(2).transpose(1, 2)], dim=1)
