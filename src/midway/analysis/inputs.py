"""Images of any size as a network wants them, and which patch a pixel falls into."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.models.midway import MidwayNetwork
from midway.nn.images import normalise


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Images as a network sees them, with the way back to their own pixels."""

    images: Float[Tensor, "batch 3 fitted_height fitted_width"]
    """ImageNet-normalised, on the network's device, in its precision."""
    grid: tuple[int, int]
    """Rows and columns of patches."""
    patch: tuple[float, float]
    """Width and height of a patch in pixels of the images as they were given."""

    def cells(self, points: Float[Tensor, "points 2"]) -> Int[Tensor, "points 2"]:
        """Column and row of the patches that hold points (x, y) of the given images."""
        patch, grid = points.new_tensor(self.patch), torch.tensor(self.grid[::-1])
        cells = torch.div(points + 0.5, patch, rounding_mode="floor").long().cpu()
        return torch.minimum(cells, grid - 1).clamp(min=0)


def fit(
    images: UInt8[Tensor, "batch 3 height width"], network: MidwayNetwork, *, short_side: int = 0
) -> Fitted:
    """Resize images so that the network can take them; nothing is cut off.

    Args:
        images: RGB bytes.
        network: Says where the images go, and the patch size.
        short_side: Pixels of the shorter side afterwards, 0 for the side that the network is made
            for. Both sides are rounded to whole patches, each on its own.

    Raises:
        MidwayError: A negative side.

    """
    if short_side < 0:
        raise MidwayError(f"short side of {short_side} pixels: give 0 or more")
    config = network.config.encoder
    height, width = images.shape[2:]
    factor = (short_side or min(config.image_size)) / min(height, width)
    rows, columns = (max(1, round(side * factor / config.patch_size)) for side in (height, width))
    parameter = next(network.parameters())
    size = (rows * config.patch_size, columns * config.patch_size)
    pixels = images.to(parameter.device, torch.float32)
    if size != (height, width):
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
    return Fitted(
        images=normalise(pixels, white=255).to(parameter.dtype),
        grid=(rows, columns),
        patch=(width / columns, height / rows),
    )


def check_points(points: Float[Tensor, "points 2"], size: Sequence[int]) -> None:
    """See that points lie in an image.

    Args:
        points: Column x and row y.
        size: Height and width of the image in pixels.

    Raises:
        MidwayError: Names the first that does not.

    """
    height, width = size
    for x, y in points.tolist():
        # Whole numbers are the middles of pixels; what is no number is outside too.
        if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
            raise MidwayError(
                f"point {x:g},{y:g} is outside the image of {width} x {height} pixels; give x from "
                f"0 to {width - 1} and y from 0 to {height - 1}"
            )
