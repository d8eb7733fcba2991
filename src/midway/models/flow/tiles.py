"""Tiled inference of optical flow: overlapping tiles, averaged by confidence.

Tiles, overlap and weights follow the published code of CroCo v2.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from midway.errors import MidwayError

SHARPNESS, SOFTNESS = 10.0, 5.0
"""b and k of the weight exp(-2 b (sigmoid(c / k) - 1/2)) of a pixel with raw uncertainty c."""


@dataclass(frozen=True, kw_only=True)
class TileConfig:
    """Size, overlap and batch size of tiles."""

    size: tuple[int, int] = (320, 384)
    """Height and width of a tile in pixels: those of the training crop."""
    overlap: float = 0.9
    """Smallest fraction of a tile that the next one overlaps, along each axis."""
    batch_size: int = 8
    """Tiles per forward pass."""

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1 or min(*self.size, self.batch_size) < 1:
            raise MidwayError(
                f"tiles of {self.size}, overlap {self.overlap}, {self.batch_size} per batch: give "
                "an overlap from 0 to below 1, and the others at least 1"
            )


def tile_offsets(length: int, tile: int, overlap: float) -> list[int]:
    """Return the starts of the tiles along an axis, evenly spaced.

    Examples:
        >>> tile_offsets(436, 320, 0.7)
        [0, 58, 116]

    """
    # In floating point as in the published code, where rounding may add one tile.
    count = 1 + math.ceil((length - tile) / ((1 - overlap) * tile))
    last = length - tile
    return [round(last * place / max(count - 1, 1)) for place in range(count)]


@torch.no_grad()
def predict_tiled(
    network: Callable[[Tensor, Tensor], Tensor],
    source: Float[Tensor, "3 height width"],
    target: Float[Tensor, "3 height width"],
    tiles: TileConfig,
) -> Float[Tensor, "2 height width"]:
    """Return the flow of a pair of frames of any size.

    A frame smaller than a tile is enlarged to cover one, with its aspect ratio, and its flow is
    scaled back.

    Args:
        network: Returns flow and raw uncertainty, shape (batch, 3, *size).
        source: ImageNet-normalised.
        target: Frame of the same size, ImageNet-normalised.
        tiles: Tiles, of the input size of the network.

    Raises:
        MidwayError: The frames differ in size.
    """
    if source.shape != target.shape:
        raise MidwayError(
            f"frames differ in size: {source.shape[1]}x{source.shape[2]} and "
            f"{target.shape[1]}x{target.shape[2]} pixels; give two of one size"
        )
    height, width = source.shape[1:]
    frames = torch.stack([source, target])
    factor = max(tiles.size[0] / height, tiles.size[1] / width)
    if factor <= 1:
        return _merged(network, frames, tiles)
    enlarged = (round(height * factor), round(width * factor))
    frames = F.interpolate(frames, enlarged, mode="bicubic")
    flow = F.interpolate(_merged(network, frames, tiles)[None], (height, width), mode="bilinear")[0]
    return flow * flow.new_tensor([width / enlarged[1], height / enlarged[0]])[:, None, None]


def _merged(
    network: Callable[[Tensor, Tensor], Tensor], frames: Tensor, tiles: TileConfig
) -> Tensor:
    """Return the weighted mean of the flow of all tiles, (2, height, width)."""
    # Weighted sums of u and v, and the sum of weights.
    total = frames.new_zeros(3, *frames.shape[2:], dtype=torch.float32)
    for windows in _batched(frames.shape[2:], tiles):
        # (2, tiles, 3, *size): sources and targets
        crops = torch.stack([frames[:, :, rows, columns] for rows, columns in windows], dim=1)
        for (rows, columns), output in zip(windows, network(*crops).float(), strict=True):
            uncertainty = (output[2] / SOFTNESS).sigmoid() - 0.5
            # Confident pixels dominate: exp(-2 b (sigmoid(c / k) - 1/2)).
            weight = (-2 * SHARPNESS * uncertainty).exp()
            total[:2, rows, columns] += weight * output[:2]
            total[2, rows, columns] += weight
    return total[:2] / total[2]


def _batched(
    size: torch.Size | tuple[int, ...], tiles: TileConfig
) -> Iterator[list[tuple[slice, slice]]]:
    """Yield rows and columns of all tiles, in batches."""
    tops, lefts = (
        tile_offsets(length, tile, tiles.overlap)
        for length, tile in zip(size, tiles.size, strict=True)
    )
    windows = [
        (slice(top, top + tiles.size[0]), slice(left, left + tiles.size[1]))
        for top, left in product(tops, lefts)
    ]
    for first in range(0, len(windows), tiles.batch_size):
        yield windows[first : first + tiles.batch_size]
