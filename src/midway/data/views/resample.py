"""Antialiased bicubic crops of a whole batch, as two small matrix products per image.

A crop is one matrix per axis. The columns of the matrix determine its position, so no window is cut
out first. The arithmetic is the same on every device and agrees with Pillow's `resize`.
`render.render_each` resizes one crop at a time instead, which suits a CPU.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from midway.nn.images import send

KERNEL_RADIUS = 2
"""Radius of the bicubic kernel, in pixels of the coarser grid."""


def _bicubic(distance: Tensor) -> Tensor:
    """Return Keys' cubic kernel (a = -0.5), each piece in terms of the distance to its end."""
    outer = (KERNEL_RADIUS - distance).clamp_(min=0)
    inner = (outer - 1).clamp_(min=0)
    return 0.5 * outer**2 * (outer - 1) + inner**2 * (1 - 2 * inner)


def banded_matrix(taps: Tensor, columns: Tensor, num_columns: int) -> Tensor:
    """Return banded matrices from their non-zero entries.

    Args:
        taps: Entries, shape (B, rows, taps).
        columns: Column of each entry, shape (B, rows, taps); entries of one column add up.
        num_columns: Width of the matrices.

    Returns:
        Matrices of shape (B, rows, num_columns).
    """
    matrices = taps.new_zeros(*taps.shape[:2], num_columns)
    return matrices.scatter_add_(2, columns, taps)


def resample_taps(
    start: Tensor, length: Tensor, longest: int, out_size: int, flip: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the weights that resample an interval of an axis, antialiased when shrinking.

    Taps outside the interval are dropped and the others renormalised, as in Pillow.

    Args:
        start: First pixel of the interval, shape (B,).
        length: Length of the interval in pixels, shape (B,).
        longest: Maximum of `length`, as a host value to avoid synchronisation.
        out_size: Number of pixels after resampling.
        flip: 1 to reverse the output, else 0, shape (B,).

    Returns:
        Weights and their input pixels, both of shape (B, out_size, taps). The weights of an output
        pixel sum to 1; dropped taps have weight 0 and the first pixel of the interval.
    """
    start, length, flip = (values[:, None, None] for values in (start, length, flip))
    scale = length / out_size  # (B, 1, 1)
    rows = torch.arange(out_size, device=length.device)[:, None]
    rows = torch.where(flip > 0, out_size - 1 - rows, rows)  # (B, out_size, 1)
    centre = (rows + 0.5) * scale  # of each output pixel, in input pixels
    # The same number of taps for the whole batch, so that the shape is known on the host.
    reach = math.ceil(KERNEL_RADIUS * max(1, longest / out_size))
    columns = centre.floor() + torch.arange(-reach, reach + 1, device=length.device)
    # When shrinking, the kernel is stretched by the scale: this is the antialiasing.
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
    """Crop boxes out of images and resize them, bicubic and antialiased, as in Pillow.

    Args:
        images: uint8 of shape (B, 3, H, W).
        boxes: Top, left, height and width in pixels of K crops of each image, shape (K, B, 4).
        flip: True for crops to flip horizontally, shape (K, B).
        size: Height and width of the results in pixels.
        dtype: Type of the matrix products. The error of half precision is at most half a level.

    Yields:
        K times one crop of each image, of type `dtype` and shape (B, 3, *size), from 0 to 255.
        Overshoot of the kernel is clipped after each axis, as in Pillow.
    """
    (top, left, height, width), mirror = send(images.device, boxes.reshape(-1, 4).T, flip.ravel())
    tallest, widest = boxes[..., 2:].reshape(-1, 2).max(0).tolist()
    axes = (
        resample_taps(top, height, tallest, size[0], torch.zeros_like(mirror)),
        resample_taps(left, width, widest, size[1], mirror),
    )
    # Weights and pixels of each axis, from (K * B, out, taps) to (K, B, out, taps).
    vertical, horizontal = ([part.unflatten(0, flip.shape) for part in axis] for axis in axes)
    num_images, _, in_height, in_width = images.shape
    # Channels between rows and columns, (B, H * 3, W): so each axis is one product for all three.
    pixels = images.transpose(1, 2).to(dtype, memory_format=torch.contiguous_format).flatten(1, 2)
    for k in range(len(boxes)):
        # columns is (B, size[1], W), rows is (B, size[0], H).
        columns = banded_matrix(horizontal[0][k].to(dtype), horizontal[1][k], in_width)
        rows = banded_matrix(vertical[0][k].to(dtype), vertical[1][k], in_height)
        narrow = (pixels @ columns.mT).clamp_(0, 255).view(num_images, in_height, 3 * size[1])
        crops = (rows @ narrow).clamp_(0, 255).view(num_images, size[0], 3, size[1])
        yield crops.transpose(1, 2)
