"""Antialiased bicubic crops of a whole batch, as two small matrix products per image.

A crop is one matrix per axis, with its place in the columns, so that nothing has to be cut out of
an image before. The same arithmetic runs on every device, and agrees with Pillow's `resize`.
`render.render_each` resizes one crop after another instead, which suits a CPU.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from midway.nn.images import send

KERNEL_RADIUS = 2
"""Reach of the bicubic kernel on either side, in pixels of the coarser grid."""


def _bicubic(distance: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5, each of its two pieces written by its distance to its end."""
    outer = (KERNEL_RADIUS - distance).clamp_(min=0)
    inner = (outer - 1).clamp_(min=0)
    return 0.5 * outer**2 * (outer - 1) + inner**2 * (1 - 2 * inner)


def banded_matrix(taps: Tensor, columns: Tensor, num_columns: int) -> Tensor:
    """Banded matrices (B, rows, num_columns) from taps and their columns, both (B, rows, taps).

    Taps that share a column add up.
    """
    matrices = taps.new_zeros(*taps.shape[:2], num_columns)
    return matrices.scatter_add_(2, columns, taps)


def resample_taps(
    start: Tensor, length: Tensor, longest: int, out_size: int, flip: Tensor
) -> tuple[Tensor, Tensor]:
    """Weights that resample a part of an axis, antialiased when shrinking.

    Taps that fall outside the part are dropped and the rest renormalised, as Pillow does.

    Args:
        start: First pixel of the part, shape (B,).
        length: How many pixels it has, shape (B,).
        longest: The largest of them.
        out_size: Pixels after resampling.
        flip: 1 to reverse the output, else 0, shape (B,).

    Returns:
        Weights and the pixels that they are for, both of shape (B, out_size, taps). The weights of
        an output pixel sum to 1; those of no effect are 0, for the first pixel of the part.
    """
    start, length, flip = (values[:, None, None] for values in (start, length, flip))
    scale = length / out_size
    rows = torch.arange(out_size, device=length.device)[:, None]
    rows = torch.where(flip > 0, out_size - 1 - rows, rows)
    centre = (rows + 0.5) * scale
    # One number of taps for the whole batch, known without asking the device.
    reach = math.ceil(KERNEL_RADIUS * max(1, longest / out_size))
    columns = centre.floor() + torch.arange(-reach, reach + 1, device=length.device)
    taps = _bicubic(((columns + 0.5 - centre) / scale.clamp(min=1)).abs())
    inside = (columns >= 0) & (columns < length)
    taps = taps * inside
    return taps / taps.sum(2, keepdim=True), (start + columns * inside).long()


def crop_resize(
    images: Tensor,
    boxes: NDArray[np.int64],
    flip: NDArray[np.bool_],
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
) -> Iterator[Tensor]:
    """Crop boxes out of images and resize them, bicubic and antialiased, as Pillow does.

    Args:
        images: Bytes of shape (B, 3, H, W).
        boxes: Top, left, height and width in pixels of K crops of each image, shape (K, B, 4).
        flip: Which crops to mirror left to right, shape (K, B).
        size: Height and width of the results.
        dtype: Type of the matrix products. Half precision is off by half a level at most.

    Yields:
        K times the crops of all images, of type `dtype` and shape (B, 3, *size), from 0 to 255:
        what the kernel overshoots is clipped after each axis, as in Pillow.
    """
    (top, left, height, width), mirror = send(images.device, boxes.reshape(-1, 4).T, flip.ravel())
    tallest, widest = boxes[..., 2:].reshape(-1, 2).max(0).tolist()
    axes = (
        resample_taps(top, height, tallest, size[0], torch.zeros_like(mirror)),
        resample_taps(left, width, widest, size[1], mirror),
    )
    vertical, horizontal = ([part.unflatten(0, flip.shape) for part in axis] for axis in axes)
    num_images, _, in_height, in_width = images.shape
    # The channels between rows and columns: then either axis is one product for all of them.
    pixels = images.transpose(1, 2).to(dtype, memory_format=torch.contiguous_format).flatten(1, 2)
    for k in range(len(boxes)):
        columns = banded_matrix(horizontal[0][k].to(dtype), horizontal[1][k], in_width)
        rows = banded_matrix(vertical[0][k].to(dtype), vertical[1][k], in_height)
        narrow = (pixels @ columns.mT).clamp_(0, 255).view(num_images, in_height, 3 * size[1])
        crops = (rows @ narrow).clamp_(0, 255).view(num_images, size[0], 3, size[1])
        yield crops.transpose(1, 2)
