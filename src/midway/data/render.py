"""The views of a batch, made on the device that its windows are on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from midway.data.views import ViewParameters, ViewsConfig
from midway.data.views_cpu import render_each
from midway.data.views_gpu import render_together

SIDE_MULTIPLE = 8


@dataclass(frozen=True, kw_only=True)
class Views:
    """The crops of a batch of pairs, normalised with ImageNet's mean and deviation."""

    motion: Tensor
    """Source and target at the same place, shape (2, B, 3, h, w)."""
    globals: Tensor
    """Crops 1 and 2 of the source, 1 and 2 of the target, shape (4, B, 3, h, w)."""
    locals: Tensor
    """Crops of the source, then of the target, shape (2 * num_local, B, 3, h, w)."""


def stack_windows(windows: Sequence[NDArray[np.uint8]]) -> Tensor:
    """The same window of several pairs, each padded to the largest on the right and below.

    Args:
        windows: From `cut_windows`, of shapes (2, height, width, 3).

    Returns:
        Bytes of shape (2, B, 3, H, W), channels last in memory, zero outside the windows. H and W
        are multiples of 8, which the matrix units of a GPU ask for.
    """
    height, width = (
        math.ceil(max(window.shape[axis] for window in windows) / SIDE_MULTIPLE) * SIDE_MULTIPLE
        for axis in (1, 2)
    )
    batch = np.empty((2, len(windows), height, width, 3), dtype=np.uint8)
    for i, window in enumerate(windows):
        _, rows, columns, _ = window.shape
        batch[:, i, :rows, :columns] = window
        batch[:, i, rows:] = 0
        batch[:, i, :rows, columns:] = 0
    return torch.from_numpy(batch).permute(0, 1, 4, 2, 3)


def render_views(
    config: ViewsConfig, windows: tuple[Tensor, Tensor], parameters: ViewParameters
) -> Views:
    """Cut, resize, distort and normalise all views of a batch, on the device of the windows.

    Args:
        config: The one that the parameters were drawn with.
        windows: From `stack_windows`, bytes of shapes (2, B, 3, H, W): those with the motion crops,
            and those with all other views.
        parameters: Those of the batch, from `stack_views`.
    """
    device, num_pairs = windows[0].device, windows[0].shape[1]
    kinds = [
        (windows[0], 2, config.motion_size),
        (windows[1], 4, config.global_size),
        (windows[1], 2 * config.num_local, config.local_size),
    ]
    made: list[Tensor] = []
    first = 0
    for window, num_views, size in kinds:
        views = slice(first, first := first + num_views)
        drawn = parameters.boxes[views], parameters.flip[views], parameters.colour.flatten(views)
        shape = (num_views, num_pairs, 3, *size)
        # Autocast would take bfloat16, which is coarser than the bytes of the frames.
        with torch.autocast(device.type, enabled=False):
            if device.type == "cpu":
                # NumPy asks for huge pages, torch does not: to touch small ones for the first time
                # would be a fifth of the work.
                out = torch.from_numpy(np.empty(shape, dtype=np.float32))
                render_each(window, *drawn, out)
            else:
                out = torch.empty(shape, device=device)
                dtype = torch.half if device.type == "cuda" else torch.float32
                render_together(window, *drawn, out, dtype=dtype)
        made.append(out)
    return Views(motion=made[0], globals=made[1], locals=made[2])
