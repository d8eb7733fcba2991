"""Photometric distortion of labelled crops, on the device."""

import torch
from torch import Tensor

from midway.data.views.photometric_gpu import turn_hue
from midway.nn.images import normalise


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
