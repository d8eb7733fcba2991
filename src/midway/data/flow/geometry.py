"""Resizing and mirroring of images (C, H, W) and flow (2, H, W).

A pixel is a point at its centre, so resizing aligns the borders of images, not their corner pixels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize an image to (height, width), bilinear without antialiasing, as in CroCo v2."""
    return F.interpolate(image[None], size, mode="bilinear")[0]


def resize_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize flow together with images to `size`, and scale it to their pixels.

    Flow that is known everywhere is interpolated. Otherwise each known vector moves to the pixel
    that contains its position. The last of several vectors on a pixel is kept, and pixels without
    one are unknown (infinite).

    Args:
        flow: Flow in pixels, shape (2, H, W), infinite where unknown.
        size: New height and width.

    Returns:
        Flow of shape (2, *size).

    """
    height, width = flow.shape[1:]
    factors = flow.new_tensor([size[1] / width, size[0] / height])
    if flow.isfinite().all():
        return resize_image(flow, size) * factors[:, None, None]
    rows, columns = flow.isfinite().all(0).nonzero(as_tuple=True)
    new_rows, new_columns = (
        ((rows + 0.5) * factors[1]).long(),
        ((columns + 0.5) * factors[0]).long(),
    )
    places = new_rows * size[1] + new_columns
    # Assignment to repeated indices is not deterministic across threads, so select the last source
    # of each pixel explicitly.
    numbers = torch.arange(len(places), device=flow.device)
    last = places.new_full((size[0] * size[1],), -1).scatter_reduce(0, places, numbers, "amax")
    known = last >= 0
    resized = flow.new_full((2, len(last)), torch.inf)  # (2, height * width)
    resized[:, known] = flow[:, rows, columns][:, last[known]] * factors[:, None]
    return resized.unflatten(1, size)


def mirror_image(image: Tensor, *, horizontal: bool, vertical: bool) -> Tensor:
    """Flip an image horizontally, vertically, both or not at all."""
    axes = [axis for axis, swap in ((2, horizontal), (1, vertical)) if swap]
    return image.flip(axes)


def mirror_flow(flow: Tensor, *, horizontal: bool, vertical: bool) -> Tensor:
    """Flip the flow of images that `mirror_image` flips, and the signs of its components."""
    signs = flow.new_tensor([-1.0 if horizontal else 1.0, -1.0 if vertical else 1.0])
    return mirror_image(flow, horizontal=horizontal, vertical=vertical) * signs[:, None, None]
