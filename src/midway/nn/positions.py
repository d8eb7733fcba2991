"""Fixed sine and cosine positions of masked autoencoders, on a grid (MAE) and along a line."""

import torch
from jaxtyping import Float
from torch import Tensor

from midway.errors import MidwayError

LONGEST = 10_000
"""Ratio of the longest period to the shortest, which is 2 pi positions."""


def grid_sinusoids(grid: tuple[int, int], dim: int) -> Float[Tensor, "1 tokens dim"]:
    """Return MAE's table: a class token, which is zero, then patches row by row.

    The first half of the channels encodes the column, the second half the row; each half has the
    sines of all frequencies first, then their cosines (MAE's published code).

    Args:
        grid: Rows and columns of patches.
        dim: Width, a multiple of 4.

    Raises:
        MidwayError: The width is no multiple of 4.

    """
    if dim % 4:
        raise MidwayError(f"width {dim}: fixed positions need a multiple of 4; change it")
    # Frequencies 1 / LONGEST^(2i / half) of the dim / 4 channels i of each wave.
    fraction = torch.arange(dim // 4, dtype=torch.float64) / (dim // 4)
    frequencies = LONGEST**-fraction
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in grid), indexing="ij")
    angles = [index.flatten()[:, None] * frequencies for index in (columns, rows)]
    patches = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)
    return torch.cat([patches.new_zeros(1, dim), patches])[None].float()


def line_sinusoids(num_positions: int, dim: int) -> Float[Tensor, "1 positions dim"]:
    """Return the table of the original transformer: sines on even channels, cosines on odd ones.

    VideoMAE uses it over the flat index of its tokens, all frames in one line.

    Args:
        num_positions: Number of tokens.
        dim: Width, a multiple of 2.

    Raises:
        MidwayError: The width is odd.

    """
    if dim % 2:
        raise MidwayError(f"width {dim}: fixed positions need a multiple of 2; change it")
    # Channels 2i and 2i + 1 have the frequency 1 / LONGEST^(2i / dim).
    fraction = torch.arange(dim // 2, dtype=torch.float64) / (dim // 2)
    angles = torch.arange(num_positions)[:, None] * LONGEST**-fraction  # (positions, dim / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[None].float()
