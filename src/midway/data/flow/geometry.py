"""Flow under resizing, mirroring and warping; images (C, H, W) and flow (2, H, W) as tensors.

A pixel is a point at its centre, so a resized image keeps its borders and not its corner pixels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, without antialiasing, as the protocol of CroCo v2 does."""
    return F.interpolate(image[None], size, mode="bilinear")[0]


def resize_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Flow of images resized to `size`, in their pixels.

    Flow that is known everywhere is interpolated. Otherwise each known vector goes to the pixel
    that its own centre falls on, and pixels that get none are unknown (infinite). Of several that
    fall on one pixel the last one stays.
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
    # Which one an assignment to repeated places leaves would depend on the number of threads.
    numbers = torch.arange(len(places), device=flow.device)
    last = places.new_full((size[0] * size[1],), -1).scatter_reduce(0, places, numbers, "amax")
    known = last >= 0
    resized = flow.new_full((2, len(last)), torch.inf)
    resized[:, known] = flow[:, rows, columns][:, last[known]] * factors[:, None]
    return resized.unflatten(1, size)


def mirror_image(image: Tensor, *, horizontal: bool, vertical: bool) -> Tensor:
    """Left and right swapped, top and bottom, both or none."""
    axes = [axis for axis, swap in ((2, horizontal), (1, vertical)) if swap]
    return image.flip(axes)


def mirror_flow(flow: Tensor, *, horizontal: bool, vertical: bool) -> Tensor:
    """Flow of images that `mirror_image` has mirrored likewise."""
    signs = flow.new_tensor([-1.0 if horizontal else 1.0, -1.0 if vertical else 1.0])
    return mirror_image(flow, horizontal=horizontal, vertical=vertical) * signs[:, None, None]
