"""Photometric distortion and normalisation of labelled crops, on the device."""

import torch
from torch import Tensor

from midway.data.views.photometric_gpu import turn_hue
from midway.nn.images import normalise


def distort(images: Tensor, distortion: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue (HSV), and contrast; clip after each step.

    Args:
        images: RGB in [0, 1], shape (B, 3, H, W).
        distortion: Parameters of each image from `draw_distortion`, shape (B, 5).

    Returns:
        RGB in [0, 1], shape (B, 3, H, W).

    """
    parameters = distortion.to(images)
    # One contrast factor is 1: contrast applies either before or after the HSV step.
    scalars = parameters[:, :4, None, None, None].unbind(1)
    brightness, contrast_before, contrast_after, saturation = scalars
    images = (images + brightness).clamp_(0, 1)
    images = (images * contrast_before).clamp_(0, 1)
    images = change_hsv(images, saturation, parameters[:, 4])
    return (images * contrast_after).clamp_(0, 1)


def change_hsv(images: Tensor, saturation: Tensor, turns: Tensor) -> Tensor:
    """Scale the saturation and shift the hue of HSV at constant value.

    Args:
        images: RGB in [0, 1], shape (B, 3, H, W).
        saturation: Factor, shape (B, 1, 1, 1).
        turns: Hue shift in turns, shape (B,).

    Returns:
        RGB in [0, 1], shape (B, 3, H, W).

    """
    images = turn_hue(images, turns)
    value = images.amax(1, keepdim=True)  # (B, 1, H, W)
    chroma = value - images.amin(1, keepdim=True)
    # The saturation chroma / value is at most 1, which limits the factor to value / chroma.
    scale = torch.minimum(saturation, value / chroma.clamp(min=1e-6))
    return value - (value - images) * scale


def as_network_input(images: Tensor, distortion: Tensor, sizes: Tensor) -> Tensor:
    """Distort and normalise images for the network, and set their padding to 0.

    Args:
        images: uint8 of shape (B, 3, H, W).
        distortion: Parameters of each image from `draw_distortion`, shape (B, 5).
        sizes: Height and width of each image without its padding, shape (B, 2).

    Returns:
        ImageNet-normalised images, shape (B, 3, H, W).

    """
    normalised = normalise(distort(images / 255, distortion))
    rows = torch.arange(images.shape[2], device=images.device)[:, None]
    columns = torch.arange(images.shape[3], device=images.device)
    height, width = sizes.to(images.device)[:, :, None, None].unbind(1)
    # The mask (B, 1, H, W) is True inside the image.
    return normalised * ((rows < height) & (columns < width)).unsqueeze(1)
