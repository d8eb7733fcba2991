"""Network inputs from images of any size, and the mapping of pixels to patches."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.models.encoders.base import Encoder
from midway.models.midway import MidwayNetwork
from midway.nn.images import normalise

SMALL_SIDE = 128
"""Training size in pixels below which a network sees too little in whole images."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Images resized for a network, with their patch grid in pixels of the originals."""

    images: Float[Tensor, "batch 3 fitted_height fitted_width"]
    """ImageNet-normalised images, on the network's device and in its dtype."""
    grid: tuple[int, int]
    """Rows and columns of patches."""
    patch: tuple[float, float]
    """Width and height of a patch, in pixels of the original images."""

    def cells(self, points: Float[Tensor, "points 2"]) -> Int[Tensor, "points 2"]:
        """Return column and row of the patches that contain points (x, y) of the original images.

        Points outside the images are assigned to the nearest patch.
        """
        patch, grid = points.new_tensor(self.patch), torch.tensor(self.grid[::-1])
        cells = torch.div(points + 0.5, patch, rounding_mode="floor").long().cpu()
        return torch.minimum(cells, grid - 1).clamp(min=0)


def fit(
    images: UInt8[Tensor, "batch 3 height width"],
    network: MidwayNetwork | Encoder,
    *,
    short_side: int = 0,
) -> Fitted:
    """Resize images to whole patches of a network, without cropping.

    Args:
        images: RGB bytes.
        network: Network or encoder that determines patch size, device and dtype.
        short_side: Shorter side after resizing in pixels; 0 for the side in the encoder's
            configuration. Height and width are rounded to whole patches independently.

    Raises:
        MidwayError: `short_side` is negative.

    """
    if short_side < 0:
        raise MidwayError(f"short side of {short_side} pixels: give 0 or more")
    encoder = network.encoder if isinstance(network, MidwayNetwork) else network
    stride = encoder.stride
    own_side = min(encoder.image_size)
    height, width = images.shape[2:]
    factor = (short_side or own_side) / min(height, width)
    rows, columns = (max(1, round(side * factor / stride)) for side in (height, width))
    parameter = next(network.parameters())
    size = (rows * stride, columns * stride)
    pixels = images.to(parameter.device, torch.float32)
    if size != (height, width):
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
    return Fitted(
        images=normalise(pixels, white=255).to(parameter.dtype),
        grid=(rows, columns),
        patch=(width / columns, height / rows),
    )


@dataclass(frozen=True, kw_only=True)
class Square:
    """Square part of images around a point, or whole images."""

    images: UInt8[Tensor, "batch 3 height width"]
    """RGB bytes."""
    points: Float[Tensor, "points 2"]
    """Column x and row y in the part."""
    corner: Float[Tensor, "2"]
    """Column and row of the part in the images."""


def squares_around(
    images: UInt8[Tensor, "batch 3 height width"], points: Float[Tensor, "points 2"], side: int
) -> list[Square]:
    """Cut a square around each point, moved into the images; all images in one part if `side` is 0.

    Args:
        images: RGB bytes.
        points: Column x and row y in pixels.
        side: Side of the squares in pixels; an axis of the images that is shorter is taken whole.

    Raises:
        MidwayError: The side is negative.

    """
    if side < 0:
        raise MidwayError(f"window of {side} pixels: give 1 or more, or 0 for whole images")
    if not side:
        return [Square(images=images, points=points, corner=points.new_zeros(2))]
    size = points.new_tensor([images.shape[3], images.shape[2]])
    squares = []
    for point in points.split(1) if len(points) else ():
        corner = (point[0] - (side - 1) / 2).round()
        corner = torch.minimum(corner, size - side).clamp(min=0)
        left, top = (int(each) for each in corner.tolist())
        part = images[:, :, top : top + side, left : left + side]
        squares.append(Square(images=part, points=point - corner, corner=corner))
    return squares


def suited_window(network: MidwayNetwork | Encoder) -> int:
    """Return the side of a window that suits a network; 0, for whole images, for most.

    A window of twice the training size shows images at half their resolution. Networks of small
    crops find more motion there than in whole frames (docs/experiments/motion.md); no other factor
    was tried on video.
    """
    encoder = network.encoder if isinstance(network, MidwayNetwork) else network
    side = min(encoder.image_size)
    return 2 * side if side < SMALL_SIDE else 0


def check_points(points: Float[Tensor, "points 2"], size: Sequence[int]) -> None:
    """Check that points are inside an image.

    Args:
        points: Column x and row y in pixels; integers are pixel centres.
        size: Height and width of the image in pixels.

    Raises:
        MidwayError: A point is outside the image; the message names the first one.

    """
    height, width = size
    for x, y in points.tolist():
        # Integers are pixel centres. The negated comparison also rejects NaN.
        if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
            raise MidwayError(
                f"point {x:g},{y:g} is outside the image of {width} x {height} pixels; give x from "
                f"0 to {width - 1} and y from 0 to {height - 1}"
            )
