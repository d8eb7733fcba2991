"""Photometric distortion of a whole batch at once.

Images are RGB floats from 0 to 255 of shape (B, 3, H, W), on any device. Everything random was
drawn before (`photometric`), into arrays on the CPU: so which image takes which operation is known
without asking the device. `photometric_cpu` does the same to one image after another, which suits a
CPU's caches.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from midway.data.views.photometric import CONTRAST, HUE, SATURATION, ColourParameters
from midway.data.views.resample import banded_matrix
from midway.nn.images import send

LUMA = (0.299, 0.587, 0.114)
"""Share of red, green and blue in what is left without colour (ITU-R 601)."""


def apply_colour(images: Tensor, parameters: ColourParameters) -> Tensor:
    """Jitter in each image's own order, then grey, blur and solarisation; not normalised.

    Args:
        images: Shape (B, 3, H, W), from 0 to 255; changed in place. All is done in their type: half
            precision is off by a level at most, and by a twentieth on average.
        parameters: With the leading axis (B,).

    Returns:
        The images given.
    """
    hues = [(parameters.jitter & (column == HUE)).nonzero()[0] for column in parameters.order.T]
    turns = [parameters.factors[indices, HUE] for indices in hues]
    grey, blurred, solarised = (
        chosen.nonzero()[0]
        for chosen in (parameters.grey, parameters.blur_sigma > 0, parameters.solarise)
    )
    sigma = parameters.blur_sigma[blurred]
    # All that the device needs to know goes there at once.
    arrays = _blends(parameters), sigma, grey, blurred, solarised, *hues, *turns
    blends, on_device, grey, blurred, solarised, *rest = send(images.device, *arrays)
    for blend, indices, turn in zip(blends.to(images.dtype), rest[:4], rest[4:], strict=True):
        _blend(images, *blend.unbind())
        _change(images, indices, turn_hue, turn.to(images.dtype))
    _change(images, grey, luma)
    if len(sigma):
        _change(images, blurred, gaussian_blur, on_device, float(sigma.max()))
    _change(images, solarised, solarise)
    return images


def _blends(parameters: ColourParameters) -> NDArray[np.float32]:
    """Brightness, contrast and saturation as one operation with three numbers per image.

    Each of them scales the distance to something by a factor: to black, to the mean luma of the
    image, or to the luma of the pixel.

    Returns:
        Factor, share of the mean luma, share of the pixel's: shape (4 places, 3, B).
    """
    factors = np.take_along_axis(parameters.factors, parameters.order, 1)
    factors = np.where(parameters.jitter[:, None] & (parameters.order != HUE), factors, 1)
    blends = np.stack((factors, parameters.order == CONTRAST, parameters.order == SATURATION))
    return blends.transpose(2, 0, 1)


def _blend(images: Tensor, factor: Tensor, mean_share: Tensor, luma_share: Tensor) -> None:
    grey = luma(images)
    mean = grey.mean(dim=(2, 3), keepdim=True)
    base = grey.mul_(_per_image(luma_share)).add_(mean * _per_image(mean_share))
    torch.lerp(base, images, _per_image(factor), out=images).clamp_(0, 255)


def _change(
    images: Tensor, indices: Tensor, operation: Callable[..., Tensor], *values: Any
) -> None:
    """Apply an operation to some of the images, in place; the values are those of these images."""
    if len(indices):
        indices = indices.long()
        part = images.index_select(0, indices)
        images.index_copy_(0, indices, operation(part, *values).expand_as(part))


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def luma(images: Tensor) -> Tensor:
    """What is left without colour, shape (B, 1, H, W)."""
    red, green, blue = images.split(1, dim=1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue circle of HSV, at constant value and saturation.

    A third of a turn is exact: red takes green's place, green blue's, blue red's. What remains is
    at most a sixth either way. On the way from red over green to blue a channel rises with the hue
    while the channel before it is the highest, stays the highest, and falls while the one after it
    is the highest. The rest of the turn moves it along that course, by six times its share of the
    span between lowest and highest channel; where it would leave that span the course bends. So no
    hue is computed and nothing divided. Backwards, the channels before and after change places.

    Args:
        images: Shape (B, 3, H, W), any range.
        turns: Any part of the circle, positive from red to green, shape (B,).
    """
    thirds = (3 * turns).round()
    rest = turns - thirds / 3
    channels = torch.arange(3, device=images.device) - thirds.long()[:, None]  # (B, 3)
    images = images.take_along_dim(channels.remainder(3)[:, :, None, None], dim=1)
    highest, lowest = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    forward = _per_image(rest > 0)
    rolled = images.roll(1, 1), images.roll(-1, 1)
    before, after = torch.where(forward, *rolled), torch.where(forward, *rolled[::-1])
    share = _per_image(6 * rest.abs())
    rise, fall = torch.lerp(lowest, highest, share), torch.lerp(highest, lowest, share)
    moved = torch.where(before == highest, rise, fall) + images - after
    return moved.clamp_(lowest, highest)


def gaussian_blur(images: Tensor, sigma: Tensor, max_sigma: float) -> Tensor:
    """Blur by a Gaussian, with the border pixels repeated outside the image.

    Args:
        images: Shape (B, 3, H, W).
        sigma: Standard deviation in pixels, above 0, shape (B,).
        max_sigma: The largest of them.
    """
    # Six deviations: so far out a tap is worth 1e-8, and the widest blur of a batch that sets the
    # number of taps does not show in the others.
    reach = math.ceil(6 * max_sigma)
    offsets = torch.arange(-reach, reach + 1, device=images.device)
    taps = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    taps = taps / taps.sum(1, keepdim=True)

    def blur_matrix(size: int) -> Tensor:
        columns = torch.arange(size, device=images.device)[:, None] + offsets
        shape = (len(images), *columns.shape)
        columns = columns.clamp(0, size - 1).expand(shape)
        return banded_matrix(taps[:, None].expand(shape), columns, size).to(images.dtype)

    height, width = images.shape[2:]
    rows = images.flatten(1, 2) @ blur_matrix(width).mT
    return blur_matrix(height)[:, None] @ rows.unflatten(1, (3, height))


def solarise(images: Tensor) -> Tensor:
    """Invert the levels from 128 of 255 on."""
    # Below 128 the level itself is the smaller of the two, from there on its inverse.
    return torch.minimum(images, 255 - images)
