"""Views of a batch, rendered on the device that its regions are on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from midway.data.views.spec import ClipSpec, ViewParameters
from midway.data.views_cpu import render_each
from midway.data.views_gpu import render_together

SIDE_MULTIPLE = 8
FrameSeconds = Float[Tensor, "frames batch"]


@dataclass(frozen=True, kw_only=True)
class Clips:
    """The views of a batch of samples, as a method's loss takes them, on the device."""

    views: Mapping[str, Float[Tensor, "frames crops batch 3 height width"]]
    """ImageNet-normalised crops by the name of the view."""
    seconds: FrameSeconds
    """Time of each frame after the first frame of its clip."""
    signals: Mapping[str, Float[Tensor, "frames batch ..."]]
    """Recorded numbers by name, such as actions."""

    def __len__(self) -> int:
        """Return the number of samples."""
        return self.seconds.shape[1]


def stack_windows(windows: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Stack one region of several samples, each padded to the largest on the right and below.

    Args:
        windows: From `cut_regions`, of shapes (frames, height, width, 3).

    Returns:
        Bytes of shape (frames, B, 3, H, W), channels last in memory, zero outside the windows. H
        and W are multiples of 8, which the matrix units of a GPU ask for.
    """
    height, width = (
        math.ceil(max(window.shape[axis] for window in windows) / SIDE_MULTIPLE) * SIDE_MULTIPLE
        for axis in (1, 2)
    )
    batch = np.empty((len(windows[0]), len(windows), height, width, 3), dtype=np.uint8)
    for i, window in enumerate(windows):
        _, rows, columns, _ = window.shape
        batch[:, i, :rows, :columns] = window
        batch[:, i, rows:] = 0
        batch[:, i, :rows, columns:] = 0
    return torch.from_numpy(batch).permute(0, 1, 4, 2, 3)


def render_views(
    spec: ClipSpec, regions: Mapping[str, Tensor], parameters: ViewParameters
) -> dict[str, Tensor]:
    """Crop, resize, distort and normalise all views of a batch, on the device of the regions.

    Args:
        spec: The one that the parameters were drawn with.
        regions: From `stack_windows`, bytes of shape (frames, B, 3, H, W) each.
        parameters: Those of the batch, from `stack_views`.

    Returns:
        Each view, shape (frames, crops, B, 3, height, width).
    """
    made = {}
    for name, crops in spec.slices.items():
        view = spec.views[name]
        windows = regions[view.region]
        drawn = parameters.boxes[crops], parameters.flip[crops], parameters.colour.flatten(crops)
        shape = (spec.num_crops(name), windows.shape[1], 3, *view.size)
        device = windows.device
        # Autocast would take bfloat16, which is coarser than the bytes of the frames.
        with torch.autocast(device.type, enabled=False):
            if device.type == "cpu":
                # NumPy asks for huge pages, torch does not: to touch small ones for the first time
                # would be a fifth of the work.
                out = torch.from_numpy(np.empty(shape, dtype=np.float32))
                render_each(windows, *drawn, out)
            else:
                out = torch.empty(shape, device=device)
                dtype = torch.half if device.type == "cuda" else torch.float32
                render_together(windows, *drawn, out, dtype=dtype)
        made[name] = out.unflatten(0, (spec.num_frames, view.count))
    return made


def example_clips(
    spec: ClipSpec,
    batch_size: int,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Clips:
    """Return normally distributed views and signals of the shapes that a method declares.

    Args:
        spec: The method's.
        batch_size: Number of samples.
        generator: Source of the numbers; None takes torch's global one.
        device: Where they are made; None is torch's default, so that "meta" costs nothing.

    """

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    frames = spec.num_frames
    return Clips(
        views={
            name: draw(frames, view.count, batch_size, 3, *view.size)
            for name, view in spec.views.items()
        },
        seconds=torch.arange(frames, dtype=torch.float32, device=device)[:, None].expand(
            frames, batch_size
        ),
        signals={name: draw(frames, batch_size, *shape) for name, shape in spec.signals.items()},
    )
