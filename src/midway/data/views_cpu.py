"""Views on a CPU, one after another: each is cut, resized, distorted and normalised in the cache.

torch's resize of bytes is several times faster than matrix products, and rounds to bytes as
Pillow's does (the published pipeline likewise); the rest is `colour_cpu`.
"""

from functools import lru_cache
from threading import get_ident

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from midway.data.views.photometric import ColourParameters
from midway.data.views.photometric_cpu import Distorter, each_image


@torch.inference_mode()
def render_each(
    windows: Tensor,
    boxes: NDArray[np.int64],
    flip: NDArray[np.bool_],
    colour: ColourParameters,
    out: Tensor,
) -> None:
    """Render the crops of one view.

    Args:
        windows: Region of each frame, bytes of shape (frames, B, 3, H, W).
        boxes: Top, left, height and width in the windows of V crops, frame by frame; shape
            (V, B, 4).
        flip: Which crops to mirror left to right, shape (V, B).
        colour: With the leading axis (V * B,).
        out: Filled with the normalised crops, shape (V, B, 3, height, width).
    """
    num_samples = windows.shape[1]
    crops_per_frame = len(flip) // len(windows)
    size = (out.shape[3], out.shape[4])
    distort = _distorter(size, get_ident())
    images = windows.flatten(0, 1).split(1)
    places = zip(boxes.reshape(-1, 4).tolist(), flip.ravel().tolist(), strict=True)
    views = zip(out.numpy().reshape(-1, 3, *size), places, each_image(colour), strict=True)
    for i, (view, ((top, left, height, width), mirror), what) in enumerate(views):
        crop_number, sample = divmod(i, num_samples)
        frame = crop_number // crops_per_frame
        image = images[frame * num_samples + sample]
        crop = image[:, :, top : top + height, left : left + width]
        resized = F.interpolate(crop, size, mode="bicubic", antialias=True).numpy()[0]
        np.copyto(view, resized[:, :, ::-1] if mirror else resized)
        distort(view, what)


@lru_cache(maxsize=8)
def _distorter(size: tuple[int, int], _thread: int) -> Distorter:
    """One for each thread: its scratch memory is worth keeping, and cannot be shared."""
    return Distorter(size)
