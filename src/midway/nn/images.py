"""Normalisation of images, transfer of arrays to a device, and warping by optical flow."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(images: Tensor, *, white: float = 1, out: Tensor | None = None) -> Tensor:
    """Subtract ImageNet's mean and divide by its standard deviation, per channel.

    Args:
        images: Shape (..., 3, H, W).
        white: Value of full intensity in `images`.
        out: Tensor for the result, or None to allocate one.
    """
    values = white * np.array((IMAGENET_MEAN, IMAGENET_STD))
    mean, std = send(images.device, values)[0][..., None, None]
    return torch.sub(images, mean, out=out).div_(std)


def denormalise(images: Tensor) -> Tensor:
    """Return the colours, in [0, 1], of images (..., 3, H, W) that `normalise` returned."""
    mean, std = send(images.device, np.array((IMAGENET_MEAN, IMAGENET_STD)))[0][..., None, None]
    return images * std + mean


def send(device: torch.device, *arrays: NDArray) -> tuple[Tensor, ...]:
    """Copy small arrays to a device as float32, in one asynchronous transfer."""
    packed = torch.from_numpy(np.concatenate([array.ravel() for array in arrays], dtype=np.float32))
    if device.type == "cuda":
        # A transfer from pageable memory would wait for the device.
        packed = packed.pin_memory()
    parts = packed.to(device, non_blocking=True).split([array.size for array in arrays])
    return tuple(part.view(array.shape) for part, array in zip(parts, arrays, strict=True))


def resized_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Return flow in pixels, (B, 2, H, W), at another size; displacements scale with it."""
    scale = flow.new_tensor([size[1] / flow.shape[3], size[0] / flow.shape[2]])
    return F.interpolate(flow, size, mode="bilinear") * scale[:, None, None]


def warp(image: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Sample a target image at the pixels to which flow points from the source.

    Args:
        image: Target, shape (B, C, H, W).
        flow: From source to target in pixels, shape (B, 2, H, W); not finite where unknown.

    Returns:
        Warped image by bilinear interpolation, 0 where flow is unknown; and the mask (B, H, W) of
        known flow that ends inside the target.
    """
    height, width = image.shape[-2:]
    known = flow.isfinite().all(1)
    u, v = torch.where(known[:, None], flow, 0).unbind(1)
    x = torch.arange(width, device=flow.device) + u
    y = torch.arange(height, device=flow.device)[:, None] + v
    inside = known & (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    # grid_sample counts from -1 to 1, from the outer edge of the first pixel to that of the last.
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    warped = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
    return warped * known[:, None], inside
