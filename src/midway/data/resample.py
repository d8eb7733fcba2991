"""Antialiased bicubic crops of a whole batch, as two small matrix products per image.

A crop is cut out of its frame, zero-padded to the largest crop of the batch, and multiplied by one
matrix per axis. The same arithmetic runs on every device, and agrees with Pillow's `resize`.
"""

import math

import torch
from torch import Tensor

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


def separable(vertical: Tensor, images: Tensor, horizontal: Tensor) -> Tensor:
    """Multiply the rows, then the columns, of images in [0, 1] by matrices of their own.

    What overshoots is clipped after each of the two, as in Pillow.

    Args:
        vertical: Shape (B, out height, in height).
        images: Shape (B, 3, in height, in width).
        horizontal: Shape (B, out width, in width).

    Returns:
        Images of shape (B, 3, out height, out width).
    """
    rows = (images.flatten(1, 2) @ horizontal.mT).clamp_(0, 1)
    return (vertical[:, None] @ rows.unflatten(1, images.shape[1:3])).clamp_(0, 1)


def resample_matrix(length: Tensor, out_size: int, in_size: int, flip: Tensor) -> Tensor:
    """Matrices that resample the first pixels of an axis, antialiased when shrinking.

    Taps that fall outside the axis are dropped and the rest renormalised, as Pillow does. Columns
    from `length` on are zero, so whatever pads the axis there does not count.

    Args:
        length: How many pixels of the axis to use, at most `in_size`, shape (B,).
        out_size: Pixels after resampling.
        in_size: Pixels of the axis, padding included.
        flip: Whether to reverse the output, shape (B,).

    Returns:
        Weights of shape (B, out_size, in_size); every row sums to 1.
    """
    length = length[:, None, None]
    scale = length.float() / out_size
    stretch = scale.clamp(min=1)
    rows = torch.arange(out_size, device=length.device)[:, None]
    rows = torch.where(flip[:, None, None], out_size - 1 - rows, rows)
    centre = (rows + 0.5) * scale
    # One number of taps for the whole batch, known without asking the device.
    reach = math.ceil(KERNEL_RADIUS * max(1, in_size / out_size))
    columns = centre.long() + torch.arange(-reach, reach + 1, device=length.device)
    taps = _bicubic(((columns + 0.5 - centre) / stretch).abs())
    taps = taps * ((columns >= 0) & (columns < length))
    taps = taps / taps.sum(2, keepdim=True)
    return banded_matrix(taps, columns.clamp(0, in_size - 1), in_size)


def cut_windows(images: Tensor, boxes: Tensor) -> Tensor:
    """One box out of each image, zero-padded on the right and below to the largest box.

    Args:
        images: Shape (B, 3, H, W).
        boxes: Top, left, height and width in pixels, integers on the CPU, shape (B, 4).

    Returns:
        Windows of shape (B, 3, largest height, largest width), of the type of `images`.
    """
    height, width = boxes[:, 2:].amax(0).tolist()
    windows = images.new_zeros(*images.shape[:2], height, width)
    for window, image, (top, left, rows, columns) in zip(
        windows.unbind(), images.unbind(), boxes.tolist(), strict=True
    ):
        window[:, :rows, :columns] = image[:, top : top + rows, left : left + columns]
    return windows


def crop_resize(images: Tensor, boxes: Tensor, size: tuple[int, int], flip: Tensor) -> Tensor:
    """Crop a box out of each image and resize it, bicubic and antialiased, as Pillow does.

    Args:
        images: Either bytes, or floats in [0, 1]; shape (B, 3, H, W).
        boxes: Top, left, height and width in pixels, integers on the CPU, shape (B, 4).
        size: Height and width of the result.
        flip: Which results to mirror left to right, on the CPU, shape (B,).

    Returns:
        Floats in [0, 1] of shape (B, 3, *size); what the kernel overshoots is clipped.
    """
    windows = cut_windows(images, boxes)
    if windows.dtype == torch.uint8:
        windows = windows * (1 / 255)
    in_height, in_width = windows.shape[2:]
    heights, widths = boxes[:, 2:].to(images.device, non_blocking=True).unbind(1)
    flip = flip.to(images.device, non_blocking=True)
    vertical = resample_matrix(heights, size[0], in_height, torch.zeros_like(flip))
    horizontal = resample_matrix(widths, size[1], in_width, flip)
    return separable(vertical, windows, horizontal)
