"""Photometric augmentation on a CPU, one image at a time, so that all passes stay in the cache.

The arithmetic is that of `photometric_gpu`. Every pass works in place or in reused scratch memory,
and operations that an image's parameters do not need are skipped. Each pass uses the faster of
NumPy (minimum and maximum of two arrays) and torch (clamping to scalars).
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from midway.data.images import LUMA
from midway.data.views.photometric import BRIGHTNESS, CONTRAST, HUE, SATURATION, ColourParameters
from midway.nn.images import IMAGENET_MEAN, IMAGENET_STD

BLUR_REACH = 3.5
"""Truncation radius of the Gaussian in standard deviations; the error stays below a tenth of a
level of 255 at the sharpest edge."""
USUAL_SIGMA = 2.0
"""Largest standard deviation with scratch memory from the start; larger ones reallocate it."""
BLUR_BLOCKS = 8, 16
"""Maximum rows and columns per blur matrix: small ones save arithmetic, large ones save calls."""


class ImageColour(NamedTuple):
    """Photometric parameters of one image: the fields of `ColourParameters` as Python scalars."""

    jitter: bool
    factors: list[float]
    order: list[int]
    grey: bool
    blur_sigma: float
    solarise: bool


def each_image(parameters: ColourParameters) -> Iterator[ImageColour]:
    """Iterate over the parameters of single images, for arrays with one leading axis."""
    lists = (getattr(parameters, name).tolist() for name in ImageColour._fields)
    return map(ImageColour, *lists)


class Distorter:
    """Photometric augmentation and normalisation of images of one size.

    Args:
        size: Height and width of the images in pixels.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = height, width = size
        self._blocks = _block(height, BLUR_BLOCKS[0]), _block(width, BLUR_BLOCKS[1])
        self._allocate_scratch(reach=_reach(USUAL_SIGMA))
        self._difference = np.empty((3, *size), dtype=np.float32)
        self._plane_tensors = torch.empty(4, 1, *size).unbind()
        self._planes = [plane.numpy() for plane in self._plane_tensors]
        self._luma_weights = torch.tensor([LUMA])
        std = np.array(IMAGENET_STD)[:, None, None]
        self._scale = (1 / (255 * std)).astype(np.float32)
        self._shift = (-np.array(IMAGENET_MEAN)[:, None, None] / std).astype(np.float32)

    def __call__(self, image: NDArray[np.float32], colour: ImageColour) -> None:
        """Apply colour jitter, greyscale, blur and solarisation, then normalise as for ImageNet.

        Args:
            image: RGB levels from 0 to 255, shape (3, height, width), contiguous; changed in place.
            colour: Parameters of the image.
        """
        pixels = torch.from_numpy(image)
        if colour.jitter:
            for operation in colour.order:
                factor = colour.factors[operation]
                if operation == BRIGHTNESS:
                    np.multiply(image, factor, out=image)
                elif operation == CONTRAST:
                    self._contrast(image, pixels, factor)
                elif operation == SATURATION:
                    torch.lerp(self._luma(pixels), pixels, factor, out=pixels)
                elif operation == HUE:
                    self._turn_hue(image, pixels, factor)
                if operation != HUE and factor > 1:
                    pixels.clamp_(0, 255)
        if colour.grey:
            pixels.copy_(self._luma(pixels))
        if reach := _reach(colour.blur_sigma):
            self._blur(image, colour.blur_sigma, reach)
        if colour.solarise:
            np.minimum(image, np.subtract(255, image, out=self._difference), out=image)
        np.multiply(image, self._scale, out=image)
        np.add(image, self._shift, out=image)

    def _allocate_scratch(self, reach: int) -> None:
        height, width = self._size
        self._max_reach = reach
        self._padded = torch.empty(3 * (height + 2 * reach) * width)
        self._blurred = torch.empty(3 * height * (width + 2 * reach))

    def _luma(self, pixels: Tensor) -> Tensor:
        """Return the luma of (3, height, width), shape (1, height, width), in scratch memory."""
        plane = self._plane_tensors[0]
        torch.mm(self._luma_weights, pixels.view(3, -1), out=plane.view(1, -1))
        return plane

    def _contrast(self, image: NDArray[np.float32], pixels: Tensor, factor: float) -> None:
        # The mean luma follows from three sums, without a plane of luma.
        sums = pixels.view(3, -1).sum(1).tolist()
        mean = sum(w * s for w, s in zip(LUMA, sums, strict=True)) / math.prod(self._size)
        np.multiply(image, factor, out=image)
        np.add(image, mean * (1 - factor), out=image)

    def _turn_hue(self, image: NDArray[np.float32], pixels: Tensor, turns: float) -> None:
        """Rotate the hue as `photometric_gpu.turn_hue` does, in as few passes as possible."""
        if thirds := round(3 * turns):
            image[:] = np.roll(image, thirds, axis=0)
            turns -= thirds / 3
        # A negative turn is a positive one with the channels in reverse order.
        image = image[::-1] if turns < 0 else image
        highest, lowest, *_ = self._planes
        np.maximum(np.maximum(image[:1], image[1:2], out=highest), image[2:], out=highest)
        np.minimum(np.minimum(image[:1], image[1:2], out=lowest), image[2:], out=lowest)
        moved = self._difference  # channel minus the channel after it
        np.subtract(image[:2], image[1:], out=moved[:2])
        np.subtract(image[2], image[0], out=moved[2])
        top, bottom, rise, fall = self._plane_tensors
        share = 6 * abs(turns)
        torch.lerp(bottom, top, share, out=rise)
        torch.lerp(top, bottom, share, out=fall)
        # The weight is 1 where the channel is the highest, else 0. This selects `rise` for the
        # channel after it, several times faster than `where`.
        torch.lerp(fall, rise, pixels.eq_(top), out=pixels)
        np.add(moved[1:], image[:2], out=moved[1:])
        np.add(moved[0], image[2], out=moved[0])
        np.maximum(moved, lowest, out=image)
        np.minimum(image, highest, out=image)

    def _blur(self, image: NDArray[np.float32], sigma: float, reach: int) -> None:
        """Blur as `photometric_gpu.gaussian_blur` does, strip by strip with one small matrix."""
        height, width = self._size
        if reach > self._max_reach:
            self._allocate_scratch(reach)
        tall = self._padded[: 3 * (height + 2 * reach) * width].view(3, -1, width)
        wide = self._blurred[: 3 * height * (width + 2 * reach)].view(3, height, -1)
        inner, (block_rows, block_columns) = slice(reach, -reach), self._blocks
        # Replicated borders: rows is (3, height + 2 reach, width), columns (3, height, width + 2
        # reach). `unfold` makes strips that overlap by 2 reach, without a copy.
        rows, columns = tall.numpy(), wide.numpy()
        rows[:, inner] = image
        rows[:, :reach], rows[:, -reach:] = image[:, :1], image[:, -1:]
        np.matmul(
            _strip_matrix(sigma, reach, block_rows),
            tall.unfold(1, block_rows + 2 * reach, block_rows).mT.numpy(),
            out=columns[:, :, inner].reshape(3, -1, block_rows, width),
        )
        columns[:, :, :reach] = columns[:, :, reach : reach + 1]
        columns[:, :, -reach:] = columns[:, :, -reach - 1 : -reach]
        np.matmul(
            wide.unfold(2, block_columns + 2 * reach, block_columns).transpose(1, 2).numpy(),
            _strip_matrix(sigma, reach, block_columns).T,
            out=image.reshape(3, height, -1, block_columns).swapaxes(1, 2),
        )


def _reach(sigma: float) -> int:
    """Return the taps on either side; 0 if almost all of the Gaussian lies in its own pixel."""
    return max(0, math.ceil(BLUR_REACH * sigma - 0.5))


def _block(size: int, largest: int) -> int:
    """Return the largest divisor of `size` up to `largest`, so that all blocks are whole."""
    return max(block for block in range(1, largest + 1) if size % block == 0)


def _strip_matrix(sigma: float, reach: int, block: int) -> NDArray[np.float32]:
    """Return the matrix (block, block + 2 reach) that blurs the middle of a strip of pixels."""
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    columns = block + 2 * reach
    # Each row is one element too wide: read at the right width, it shifts by one more than the
    # row above it, which makes the matrix banded.
    shifted = np.zeros((block, columns + 1), dtype=np.float32)
    shifted[:, : 2 * reach + 1] = taps / taps.sum()
    return shifted.ravel()[: block * columns].reshape(block, columns)
