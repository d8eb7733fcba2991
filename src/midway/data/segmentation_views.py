"""Training crops of labelled images: drawn and cut on the host, distorted on the device.

The pipeline is that of mmsegmentation, which the paper's readouts use: a random scale, a crop that
no class fills, a flip, photometric distortion. Only the part of the image that ends up in the crop
is resampled.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from midway.data.colour import normalise, turn_hue
from midway.data.segmentation import SegmentationData
from midway.data.segmentation_layouts import IGNORE

MAX_REDRAWS = 10
BRIGHTNESS = 32 / 255
FACTORS = (0.5, 1.5)
"""Range of the factors of contrast and saturation."""
HUE_TURNS = 18 / 180
NEUTRAL = (0.0, 1.0, 1.0, 1.0, 0.0)
"""A distortion that changes nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Crop:
    """A training crop before its distortion."""

    image: NDArray[np.uint8]
    """Shape (height, width, 3); smaller than asked for if the image is."""
    classes: NDArray[np.uint8]
    """Shape (height, width)."""
    distortion: tuple[float, ...]
    """Brightness to add, contrast before and after, saturation factor, turn of the hue."""


def fitted_size(size: tuple[int, int], scale: tuple[float, float]) -> tuple[int, int]:
    """Width and height of an image made to fit in a longest and a shortest side.

    Example:
        >>> fitted_size((1280, 720), (2048, 1024))
        (1820, 1024)

    """
    longest, shortest = max(scale), min(scale)
    factor = min(longest / max(size), shortest / min(size))
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))


def draw_crop(
    image: Image.Image,
    classes: NDArray[np.uint8],
    data: SegmentationData,
    rng: np.random.Generator,
) -> Crop:
    """A random training crop of a labelled image.

    Args:
        image: RGB.
        classes: Shape (height, width).
        data: Scale, ratio, crop, flip and distortion.
        rng: The only source of randomness.

    """
    ratio = rng.uniform(*data.ratio)
    size = fitted_size(image.size, (data.scale[0] * ratio, data.scale[1] * ratio))
    labels = Image.fromarray(classes)
    window = _draw_window(size, data.crop, rng)
    cut = np.asarray(resampled(labels, size, window, Image.Resampling.NEAREST))
    for _ in range(MAX_REDRAWS):
        if _is_mixed(cut, data.max_class_share):
            break
        window = _draw_window(size, data.crop, rng)
        cut = np.asarray(resampled(labels, size, window, Image.Resampling.NEAREST))
    pixels = np.asarray(resampled(image, size, window, Image.Resampling.BILINEAR))
    if rng.random() < data.p_flip:
        pixels, cut = pixels[:, ::-1], cut[:, ::-1]
    distortion = draw_distortion(rng) if data.distort else NEUTRAL
    return Crop(image=pixels, classes=cut, distortion=distortion)


def resampled(
    picture: Image.Image,
    size: tuple[int, int],
    window: tuple[int, int, int, int],
    method: Image.Resampling,
) -> Image.Image:
    """A window of a picture that is resized as a whole: resize then crop, at the cost of the crop.

    Args:
        picture: Image or labels.
        size: Width and height that the whole is resized to.
        window: Left, top, right and bottom in the resized picture.
        method: Bilinear (which averages when it shrinks) or nearest.

    """
    left, top, right, bottom = window
    x, y = picture.width / size[0], picture.height / size[1]
    box = (left * x, top * y, min(right * x, picture.width), min(bottom * y, picture.height))
    return picture.resize((right - left, bottom - top), method, box)


def draw_distortion(rng: np.random.Generator) -> tuple[float, ...]:
    """Parameters of a photometric distortion, each of its four parts with probability a half."""
    takes = rng.random(4) < 0.5
    brightness = rng.uniform(-BRIGHTNESS, BRIGHTNESS)
    contrast, saturation = rng.uniform(*FACTORS, 2)
    turn = rng.uniform(-HUE_TURNS, HUE_TURNS)
    contrast_first = rng.random() < 0.5
    return (
        brightness if takes[0] else 0.0,
        contrast if takes[1] and contrast_first else 1.0,
        contrast if takes[1] and not contrast_first else 1.0,
        saturation if takes[2] else 1.0,
        turn if takes[3] else 0.0,
    )


def distort(images: Tensor, distortion: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue in HSV, contrast again; clipped in between.

    Args:
        images: RGB in [0, 1], shape (B, 3, H, W).
        distortion: Parameters of each image as `draw_distortion` gives them, shape (B, 5).

    """
    parameters = distortion.to(images)
    scalars = parameters[:, :4, None, None, None].unbind(1)
    brightness, contrast_before, contrast_after, saturation = scalars
    images = (images + brightness).clamp_(0, 1)
    images = (images * contrast_before).clamp_(0, 1)
    images = change_hsv(images, saturation, parameters[:, 4])
    return (images * contrast_after).clamp_(0, 1)


def change_hsv(images: Tensor, saturation: Tensor, turns: Tensor) -> Tensor:
    """Scale the saturation of HSV and turn the hue; the value stays.

    Args:
        images: RGB in [0, 1], shape (B, 3, H, W).
        saturation: Factor, shape (B, 1, 1, 1).
        turns: Turns of the hue circle, shape (B,).

    """
    images = turn_hue(images, turns)
    value = images.amax(1, keepdim=True)
    chroma = value - images.amin(1, keepdim=True)
    # The saturation is chroma / value and at most 1.
    scale = torch.minimum(saturation, value / chroma.clamp(min=1e-6))
    return value - (value - images) * scale


def as_network_input(images: Tensor, distortion: Tensor, sizes: Tensor) -> Tensor:
    """Distorted, ImageNet-normalised images, 0 where the image ends before the crop.

    Args:
        images: uint8 of shape (B, 3, H, W).
        distortion: As for `distort`.
        sizes: Height and width that each image fills, shape (B, 2).

    """
    normalised = normalise(distort(images / 255, distortion))
    rows = torch.arange(images.shape[2], device=images.device)[:, None]
    columns = torch.arange(images.shape[3], device=images.device)
    height, width = sizes.to(images.device)[:, :, None, None].unbind(1)
    return normalised * ((rows < height) & (columns < width)).unsqueeze(1)


def _draw_window(
    size: tuple[int, int], crop: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    height, width = min(crop[0], size[1]), min(crop[1], size[0])
    top = int(rng.integers(size[1] - height + 1))
    left = int(rng.integers(size[0] - width + 1))
    return left, top, left + width, top + height


def _is_mixed(classes: NDArray[np.uint8], max_share: float) -> bool:
    """Whether there are two classes at least and none has too large a share of the labels."""
    counts = np.bincount(classes.ravel(), minlength=IGNORE + 1)[:IGNORE]
    return bool(np.count_nonzero(counts) > 1 and counts.max() < max_share * counts.sum())
