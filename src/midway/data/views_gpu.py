"""Views on an accelerator, all of one size at once: few and large operations, and no waiting."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from midway.data.views.photometric import ColourParameters
from midway.data.views.photometric_gpu import apply_colour, normalise
from midway.data.views.resample import crop_resize


def render_together(
    windows: Tensor,
    boxes: NDArray[np.int64],
    flip: NDArray[np.bool_],
    colour: ColourParameters,
    out: Tensor,
    *,
    dtype: torch.dtype,
) -> None:
    """Render the crops of one view; the arguments are those of `views_cpu.render_each`.

    `dtype` is that of all arithmetic. Half precision moves half the bytes, which is what a GPU
    spends its time on, and is off by a level of 255 at most; bfloat16 is coarser than bytes are.
    """
    num_crops = len(flip)
    if num_crops == 0:
        return
    num_frames, num_samples = windows.shape[:2]
    # All frames are one batch of images, with as many crops of each.
    by_frame = (num_frames, num_crops // num_frames, num_samples)
    num_images = num_frames * num_samples
    boxes = boxes.reshape(*by_frame, 4).swapaxes(0, 1).reshape(-1, num_images, 4)
    flip = flip.reshape(by_frame).swapaxes(0, 1).reshape(-1, num_images)
    levels = torch.empty_like(out, dtype=dtype)
    crops = crop_resize(windows.flatten(0, 1), boxes, flip, (out.shape[3], out.shape[4]), dtype)
    for views, crop in zip(levels.unflatten(0, by_frame[:2]).unbind(1), crops, strict=True):
        views.copy_(crop.unflatten(0, (num_frames, num_samples)))
    apply_colour(levels.flatten(0, 1), colour)
    normalise(levels, white=255, out=out)
