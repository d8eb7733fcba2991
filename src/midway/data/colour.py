"""Photometric distortion of a batch, each sample with its own parameters.

Images are RGB floats in [0, 1] of shape (B, 3, H, W), on any device. What is random was drawn
before, into `ColourParameters` on the CPU: so which sample takes which operation is known without
asking the device, and an operation touches only the samples that take it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from midway.data.resample import banded_matrix, separable

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NEUTRAL = (1.0, 1.0, 1.0, 0.0)
JITTER = (0.4, 0.4, 0.2, 0.1)
"""Largest change of the factors of brightness, contrast and saturation, and of the hue in turns."""
P_JITTER = 0.8
P_GREY = 0.2
BLUR_SIGMA = (0.1, 2.0)
"""Range of the Gaussian's standard deviation, in pixels of the crop."""
SOLARISE_THRESHOLD = 128 / 255


@dataclass(frozen=True, kw_only=True)
class ColourParameters:
    """What happens to the colours of each image: CPU tensors with the same leading axes."""

    jitter: Tensor
    """Whether brightness, contrast, saturation and hue change at all, shape (...)."""
    factors: Tensor
    """Three factors, then the turn of the hue, shape (..., 4)."""
    order: Tensor
    """Which of the four comes first, second, third and fourth, shape (..., 4)."""
    grey: Tensor
    """Whether the colours are dropped, shape (...)."""
    blur_sigma: Tensor
    """Standard deviation of the blur in pixels, 0 for none, shape (...)."""
    solarise: Tensor
    """Whether bright pixels are inverted, shape (...)."""

    @classmethod
    def stack(cls, parameters: Sequence["ColourParameters"]) -> "ColourParameters":
        """Put the parameters of several samples along a new second axis."""
        return cls(
            **{
                name: torch.stack([getattr(each, name) for each in parameters], dim=1)
                for name in vars(parameters[0])
            }
        )

    def flatten(self, views: slice) -> "ColourParameters":
        """The chosen entries of the first axis, with that axis and the next made one."""
        return ColourParameters(
            **{name: value[views].flatten(0, 1) for name, value in vars(self).items()}
        )


def draw_colour(p_blur: Tensor, p_solarise: Tensor, generator: torch.Generator) -> ColourParameters:
    """Draw the photometric part of one image per entry.

    Args:
        p_blur: Probability of blur for each image, shape (V,).
        p_solarise: Probability of solarisation for each image, shape (V,).
        generator: The only source of randomness.

    Returns:
        Parameters with the leading axis (V,).
    """
    num_images = len(p_blur)
    chance, factors, order = torch.rand(3, num_images, 4, generator=generator)
    sigma = torch.rand(num_images, generator=generator)
    sigma = BLUR_SIGMA[0] + (BLUR_SIGMA[1] - BLUR_SIGMA[0]) * sigma
    return ColourParameters(
        jitter=chance[:, 0] < P_JITTER,
        factors=torch.tensor(NEUTRAL) + torch.tensor(JITTER) * (2 * factors - 1),
        order=order.argsort(1),
        grey=chance[:, 1] < P_GREY,
        blur_sigma=sigma * (chance[:, 2] < p_blur),
        solarise=chance[:, 3] < p_solarise,
    )


def luma(images: Tensor) -> Tensor:
    """What is left without colour (ITU-R 601), shape (B, 1, H, W)."""
    red, green, blue = images.split(1, dim=1)
    return (red * 0.299).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the values by a factor per image, shape (B,)."""
    return (images * _per_image(factor, images)).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance to the mean luma of the image by a factor per image, shape (B,)."""
    mean = luma(images).mean(dim=(2, 3), keepdim=True)
    return torch.lerp(mean, images, _per_image(factor, images)).clamp_(0, 1)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance to the luma of the pixel by a factor per image, shape (B,)."""
    return torch.lerp(luma(images), images, _per_image(factor, images)).clamp_(0, 1)


def adjust_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue circle of HSV; `turn` counts whole turns, one per image, shape (B,)."""
    red, green, blue = images.split(1, dim=1)
    value, lowest = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    chroma = value - lowest
    # Sixths of a turn from red; without chroma any hue will do. Interpolation by a mask that is 0
    # or 1 is a choice, several times faster on a CPU than `where`.
    divisor = chroma.clamp(min=1e-6)
    hue = ((red - green) / divisor).add_(4)
    hue.lerp_(((blue - red) / divisor).add_(2), (value == green).to(hue.dtype))
    hue.lerp_((green - blue) / divisor, (value == red).to(hue.dtype))
    hue = hue / 6 + _per_image(turn, images)
    hue = (hue - hue.floor()) * 6
    weights = torch.cat(((hue - 3).abs() - 1, 2 - (hue - 2).abs(), 2 - (hue - 4).abs()), dim=1)
    return torch.addcmul(lowest, weights.clamp_(0, 1), chroma)


def to_grey(images: Tensor) -> Tensor:
    """Put the luma in all three channels."""
    return luma(images).expand_as(images)


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur by a Gaussian, with the border pixels repeated outside the image.

    Args:
        images: Shape (B, 3, H, W).
        sigma: Standard deviation in pixels, above 0, on the CPU, shape (B,).
    """
    # Six deviations: so far out a tap is worth 1e-8, and the widest blur of a batch that sets the
    # number of taps does not show in the others.
    reach = math.ceil(6 * float(sigma.max()))
    offsets = torch.arange(-reach, reach + 1, device=images.device)
    taps = torch.exp(-0.5 * (offsets / sigma.to(images.device, non_blocking=True)[:, None]) ** 2)
    taps = taps / taps.sum(1, keepdim=True)

    def blur_matrix(size: int) -> Tensor:
        columns = torch.arange(size, device=images.device)[:, None] + offsets
        shape = (len(images), *columns.shape)
        columns = columns.clamp(0, size - 1).expand(shape)
        return banded_matrix(taps[:, None].expand(shape), columns, size)

    return separable(blur_matrix(images.shape[2]), images, blur_matrix(images.shape[3]))


def solarise(images: Tensor) -> Tensor:
    """Invert the values from 128 of 255 on."""
    return torch.lerp(images, 1 - images, (images >= SOLARISE_THRESHOLD).to(images.dtype))


def normalise(images: Tensor) -> Tensor:
    """Subtract ImageNet's mean and divide by its standard deviation, per channel."""
    mean, std = torch.tensor((IMAGENET_MEAN, IMAGENET_STD)).to(images.device, non_blocking=True)
    return (images - mean[:, None, None]).div_(std[:, None, None])


ADJUSTMENTS = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)


def apply_colour(images: Tensor, parameters: ColourParameters) -> Tensor:
    """Jitter in each image's own order, then grey, blur and solarisation; not normalised.

    Args:
        images: Shape (B, 3, H, W); changed in place.
        parameters: On the CPU, with the leading axis (B,).

    Returns:
        The images given.
    """
    for place in parameters.order.unbind(1):
        for which, adjust in enumerate(ADJUSTMENTS):
            chosen = parameters.jitter & (place == which)
            _change(images, chosen, adjust, parameters.factors[:, which])
    _change(images, parameters.grey, to_grey)
    _change(images, parameters.blur_sigma > 0, gaussian_blur, parameters.blur_sigma)
    _change(images, parameters.solarise, solarise)
    return images


def _change(
    images: Tensor, chosen: Tensor, operation: Callable[..., Tensor], *values: Tensor
) -> None:
    """Apply an operation to the chosen images, in place, with their share of the values."""
    indices = chosen.nonzero().flatten()
    if len(indices):
        on_device = indices.to(images.device, non_blocking=True)
        part = operation(images.index_select(0, on_device), *(value[indices] for value in values))
        images.index_copy_(0, on_device, part)


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    return values.to(images.device, non_blocking=True)[:, None, None, None]
