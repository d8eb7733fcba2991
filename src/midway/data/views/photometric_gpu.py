"""Photometric augmentation of a whole batch.

Images are RGB floats from 0 to 255 of shape (B, 3, H, W), on any device. `photometric` draws all
random parameters beforehand, into CPU arrays, so each operation selects its images without
synchronising with the device. `photometric_cpu` processes one image at a time, which suits the
caches of a CPU.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from midway.data.images import LUMA
from midway.data.views.photometric import CONTRAST, HUE, SATURATION, ColourParameters
from midway.data.views.resample import banded_matrix
from midway.nn.images import send


def apply_colour(images: Tensor, parameters: ColourParameters) -> Tensor:
    """Apply colour jitter in each image's order, then greyscale, blur and solarisation.

    Args:
        images: Shape (B, 3, H, W), from 0 to 255; changed in place. Their type is that of all
            arithmetic; the error of half precision is at most one level, and 0.05 on average.
        parameters: With the leading axis (B,).

    Returns:
        `images`, not normalised.
    """
    hues = [(parameters.jitter & (column == HUE)).nonzero()[0] for column in parameters.order.T]
    turns = [parameters.factors[indices, HUE] for indices in hues]
    grey, blurred, solarised = (
        chosen.nonzero()[0]
        for chosen in (parameters.grey, parameters.blur_sigma > 0, parameters.solarise)
    )
    sigma = parameters.blur_sigma[blurred]
    # A single transfer for all parameters.
    arrays = _blends(parameters), sigma, grey, blurred, solarised, *hues, *turns
    blends, on_device, grey, blurred, solarised, *rest = send(images.device, *arrays)
    # One pass for each position in the order; no image takes two operations in the same pass.
    for blend, indices, turn in zip(blends.to(images.dtype), rest[:4], rest[4:], strict=True):
        _blend(images, *blend.unbind())
        _change(images, indices, turn_hue, turn.to(images.dtype))
    _change(images, grey, luma)
    if len(sigma):
        _change(images, blurred, gaussian_blur, on_device, float(sigma.max()))
    _change(images, solarised, solarise)
    return images


def _blends(parameters: ColourParameters) -> NDArray[np.float32]:
    """Return brightness, contrast and saturation as one blend with three numbers per image.

    Each operation scales the distance to a base by a factor. The base is black, the mean luma of
    the image or the luma of the pixel, respectively.

    Returns:
        Factor, weight of the mean luma and weight of the pixel's luma, for each position in the
        order; shape (4, 3, B).
    """
    factors = np.take_along_axis(parameters.factors, parameters.order, 1)  # (B, 4)
    factors = np.where(parameters.jitter[:, None] & (parameters.order != HUE), factors, 1)
    blends = np.stack((factors, parameters.order == CONTRAST, parameters.order == SATURATION))
    return blends.transpose(2, 0, 1)


def _blend(images: Tensor, factor: Tensor, mean_share: Tensor, luma_share: Tensor) -> None:
    """Scale the distance to the base in place; factor and weights have shape (B,)."""
    grey = luma(images)  # (B, 1, H, W)
    mean = grey.mean(dim=(2, 3), keepdim=True)  # (B, 1, 1, 1)
    base = grey.mul_(_per_image(luma_share)).add_(mean * _per_image(mean_share))
    torch.lerp(base, images, _per_image(factor), out=images).clamp_(0, 255)


def _change(
    images: Tensor, indices: Tensor, operation: Callable[..., Tensor], *values: Any
) -> None:
    """Apply an operation in place to the images at `indices`, with one value for each of them."""
    if len(indices):
        indices = indices.long()
        part = images.index_select(0, indices)
        images.index_copy_(0, indices, operation(part, *values).expand_as(part))


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def luma(images: Tensor) -> Tensor:
    """Return the luma of images (B, 3, H, W), shape (B, 1, H, W)."""
    red, green, blue = images.split(1, dim=1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate the hue of HSV at constant value and saturation.

    A third of a turn is an exact permutation of the channels: red moves to green, green to blue,
    blue to red. The remainder r is at most a sixth of a turn in either direction. From red over
    green to blue, a channel rises with the hue while the channel before it is the highest, then is
    the highest itself, and falls while the channel after it is the highest. The remainder moves it
    along this piecewise linear course by 6 |r| (highest - lowest); clamping to [lowest, highest]
    handles the bends. So no hue is computed and nothing is divided. For negative r, the channels
    before and after swap roles.

    Args:
        images: Shape (B, 3, H, W), any range.
        turns: Angles in turns, positive from red to green, shape (B,).

    Returns:
        Images of the same shape.
    """
    thirds = (3 * turns).round()
    rest = turns - thirds / 3  # r, in [-1/6, 1/6]
    channels = torch.arange(3, device=images.device) - thirds.long()[:, None]  # (B, 3)
    images = images.take_along_dim(channels.remainder(3)[:, :, None, None], dim=1)
    highest, lowest = images.amax(1, keepdim=True), images.amin(1, keepdim=True)  # (B, 1, H, W)
    forward = _per_image(rest > 0)
    rolled = images.roll(1, 1), images.roll(-1, 1)
    # For each channel, the neighbours on the circle; both (B, 3, H, W).
    before, after = torch.where(forward, *rolled), torch.where(forward, *rolled[::-1])
    share = _per_image(6 * rest.abs())
    rise, fall = torch.lerp(lowest, highest, share), torch.lerp(highest, lowest, share)
    moved = torch.where(before == highest, rise, fall) + images - after
    return moved.clamp_(lowest, highest)


def gaussian_blur(images: Tensor, sigma: Tensor, max_sigma: float) -> Tensor:
    """Blur by a Gaussian with replicated borders.

    Args:
        images: Shape (B, 3, H, W).
        sigma: Standard deviation in pixels, above 0, shape (B,).
        max_sigma: Maximum of `sigma`, as a host value to avoid synchronisation.

    Returns:
        Images of the same shape.
    """
    # The widest blur of the batch sets the number of taps. Beyond six standard deviations a tap is
    # below 1e-8, so the result of an image does not depend on the rest of the batch.
    reach = math.ceil(6 * max_sigma)
    offsets = torch.arange(-reach, reach + 1, device=images.device)
    taps = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)  # (B, taps)
    taps = taps / taps.sum(1, keepdim=True)

    def blur_matrix(size: int) -> Tensor:
        columns = torch.arange(size, device=images.device)[:, None] + offsets  # (size, taps)
        shape = (len(images), *columns.shape)
        columns = columns.clamp(0, size - 1).expand(shape)
        return banded_matrix(taps[:, None].expand(shape), columns, size).to(images.dtype)

    height, width = images.shape[2:]
    rows = images.flatten(1, 2) @ blur_matrix(width).mT  # (B, 3 * H, W)
    return blur_matrix(height)[:, None] @ rows.unflatten(1, (3, height))


def solarise(images: Tensor) -> Tensor:
    """Invert levels of 128 and above."""
    # Below 128 the level itself is the smaller of the two, from 128 on its inverse.
    return torch.minimum(images, 255 - images)
