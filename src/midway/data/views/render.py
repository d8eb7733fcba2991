"""Views of a batch: stacking of regions, rendering on a CPU or GPU, and random examples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import get_ident

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from midway.data.views.photometric import ColourParameters
from midway.data.views.photometric_cpu import Distorter, each_image
from midway.data.views.photometric_gpu import apply_colour
from midway.data.views.resample import crop_resize
from midway.data.views.spec import ClipSpec, ViewParameters
from midway.nn.images import normalise

SIDE_MULTIPLE = 8
"""Divisor of the sides of stacked windows; the matrix units of a GPU require it."""
FrameSeconds = Float[Tensor, "frames batch"]


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Rendered views of a batch: the input of a method's loss."""

    views: Mapping[str, Float[Tensor, "frames crops batch 3 height width"]]
    """ImageNet-normalised crops by name of the view."""
    seconds: FrameSeconds
    """Time of each frame after the first frame of its clip."""
    signals: Mapping[str, Float[Tensor, "frames batch ..."]]
    """Recorded signals by name, such as actions."""

    def __len__(self) -> int:
        """Return the number of samples."""
        return self.seconds.shape[1]


def stack_windows(windows: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Stack one region of several samples, padded on the right and below to the largest.

    Args:
        windows: B windows from `cut_regions`, uint8 of shape (frames, height, width, 3).

    Returns:
        uint8 of shape (frames, B, 3, H, W), channels last in memory, 0 in the padding. H and W are
        multiples of `SIDE_MULTIPLE`.
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
    """Crop, resize, distort and normalise all views of a batch on the device of its regions.

    Args:
        spec: Specification that the parameters were drawn with.
        regions: Regions from `stack_windows`, uint8 of shape (frames, B, 3, H, W) each.
        parameters: Parameters of the batch from `stack_views`.

    Returns:
        ImageNet-normalised float32 crops by name of the view, shape (frames, crops, B, 3, height,
        width).
    """
    made = {}
    for name, crops in spec.slices.items():
        view = spec.views[name]
        windows = regions[view.region]
        drawn = parameters.boxes[crops], parameters.flip[crops], parameters.colour.flatten(crops)
        shape = (spec.num_crops(name), windows.shape[1], 3, *view.size)
        device = windows.device
        # Autocast would use bfloat16, which is coarser than the 8 bits of the frames.
        with torch.autocast(device.type, enabled=False):
            if device.type == "cpu":
                # NumPy requests huge pages, torch does not. Page faults of small pages would take a
                # fifth of the time.
                out = torch.from_numpy(np.empty(shape, dtype=np.float32))
                render_each(windows, *drawn, out)
            else:
                out = torch.empty(shape, device=device)
                dtype = torch.half if device.type == "cuda" else torch.float32
                render_together(windows, *drawn, out, dtype=dtype)
        made[name] = out.unflatten(0, (spec.num_frames, view.count))  # from (V, B, 3, H, W)
    return made


def example_clips(
    spec: ClipSpec, batch_size: int, *, generator: torch.Generator | None = None
) -> Clips:
    """Return normally distributed views and signals of the shapes in a specification.

    They are on torch's default device.

    Args:
        spec: Specification of the method.
        batch_size: Number of samples.
        generator: Random generator; None takes torch's global one.

    """

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    frames = spec.num_frames
    return Clips(
        views={
            name: draw(frames, view.count, batch_size, 3, *view.size)
            for name, view in spec.views.items()
        },
        seconds=torch.arange(frames, dtype=torch.float32)[:, None].expand(frames, batch_size),
        signals={name: draw(frames, batch_size, *shape) for name, shape in spec.signals.items()},
    )


@torch.inference_mode()
def render_each(
    windows: Tensor,
    boxes: NDArray[np.int64],
    flip: NDArray[np.bool_],
    colour: ColourParameters,
    out: Tensor,
) -> None:
    """Render the crops of one view one at a time, on a CPU.

    Args:
        windows: Region of each frame, uint8 of shape (frames, B, 3, H, W).
        boxes: Top, left, height and width of V crops in pixels of the windows, frame by frame;
            shape (V, B, 4).
        flip: True for crops to flip horizontally, shape (V, B).
        colour: Photometric parameters with the leading axis (V * B,).
        out: Output, filled with the normalised crops, shape (V, B, 3, height, width).
    """
    num_samples = windows.shape[1]
    crops_per_frame = len(flip) // len(windows)
    size = (out.shape[3], out.shape[4])
    distort = _distorter(size, get_ident())
    images = windows.flatten(0, 1).split(1)  # frames * B of (1, 3, H, W)
    places = zip(boxes.reshape(-1, 4).tolist(), flip.ravel().tolist(), strict=True)
    views = zip(out.numpy().reshape(-1, 3, *size), places, each_image(colour), strict=True)
    for i, (view, ((top, left, height, width), mirror), image_colour) in enumerate(views):
        crop_number, sample = divmod(i, num_samples)
        frame = crop_number // crops_per_frame
        image = images[frame * num_samples + sample]
        crop = image[:, :, top : top + height, left : left + width]
        resized = F.interpolate(crop, size, mode="bicubic", antialias=True).numpy()[0]
        np.copyto(view, resized[:, :, ::-1] if mirror else resized)
        distort(view, image_colour)


@lru_cache(maxsize=8)
def _distorter(size: tuple[int, int], _thread: int) -> Distorter:
    """Return the thread's own `Distorter`: its scratch memory is reused and cannot be shared."""
    return Distorter(size)


def render_together(
    windows: Tensor,
    boxes: NDArray[np.int64],
    flip: NDArray[np.bool_],
    colour: ColourParameters,
    out: Tensor,
    *,
    dtype: torch.dtype,
) -> None:
    """Render the crops of one view as one batch, on any device.

    Args:
        windows: As for `render_each`.
        boxes: As for `render_each`.
        flip: As for `render_each`.
        colour: As for `render_each`.
        out: As for `render_each`.
        dtype: Type of all arithmetic. Half precision halves the memory traffic, which limits a GPU
            here, and its error is at most one level of 255; bfloat16 is coarser than 8 bits.
    """
    num_crops = len(flip)
    if num_crops == 0:
        return
    num_frames, num_samples = windows.shape[:2]
    # All frames form one batch of images with K = V / frames crops each:
    # boxes (V, B, 4) -> (K, frames * B, 4), flip (V, B) -> (K, frames * B).
    by_frame = (num_frames, num_crops // num_frames, num_samples)
    num_images = num_frames * num_samples
    boxes = boxes.reshape(*by_frame, 4).swapaxes(0, 1).reshape(-1, num_images, 4)
    flip = flip.reshape(by_frame).swapaxes(0, 1).reshape(-1, num_images)
    levels = torch.empty_like(out, dtype=dtype)  # (V, B, 3, height, width), from 0 to 255
    crops = crop_resize(windows.flatten(0, 1), boxes, flip, (out.shape[3], out.shape[4]), dtype)
    for views, crop in zip(levels.unflatten(0, by_frame[:2]).unbind(1), crops, strict=True):
        # The k-th crop of each frame: (frames * B, 3, ...) -> (frames, B, 3, ...).
        views.copy_(crop.unflatten(0, (num_frames, num_samples)))
    apply_colour(levels.flatten(0, 1), colour)
    normalise(levels, white=255, out=out)
