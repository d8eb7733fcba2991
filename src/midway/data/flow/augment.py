"""Augmentation of flow pairs, the one of CroCo v2 (its published code): the same for every dataset.

Resize, mirror and crop both frames alike, then jitter their colours, mostly alike. It runs in the
workers of a loader, on one pair at a time, because pairs of a batch have different sizes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from midway.data.flow.datasets import FlowExample
from midway.data.flow.geometry import mirror_flow, mirror_image, resize_flow, resize_image
from midway.data.views.photometric import NEUTRAL, ColourParameters
from midway.data.views.photometric_gpu import apply_colour
from midway.errors import MidwayError

P_RESIZE = 0.8
RESIZE_OCTAVES = (-0.2, 0.5)
P_STRETCH = 0.8
STRETCH_OCTAVES = (-0.2, 0.2)
"""Of each axis for itself."""
MARGIN_PIXELS = 8
"""Resized frames are at least so much larger than the crop."""
P_MIRROR_HORIZONTAL, P_MIRROR_VERTICAL = 0.5, 0.1
JITTER = (0.4, 0.4, 0.4, 0.5 / 3.14)
"""Largest change of the factors of brightness, contrast and saturation, and of the hue in turns."""
P_SEPARATE_JITTER = 0.2
"""How often the two frames have jitter of their own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FlowCrop:
    """What a network is trained on: tensors of one size."""

    source: Tensor
    """uint8 (3, H, W)."""
    target: Tensor
    flow: Tensor
    """float32 (2, H, W), not finite where it is not known."""


def fixed_crop(example: FlowExample, crop: tuple[int, int]) -> FlowCrop:
    """The middle of a pair, without any distortion.

    Raises:
        MidwayError: The frames are smaller than the crop.
    """
    height, width = example.source.shape[:2]
    if height < crop[0] or width < crop[1]:
        raise MidwayError(
            f"frames of {height}x{width} pixels: smaller than the crop of {crop[0]}x{crop[1]}; "
            "choose a smaller crop, or augment, which enlarges them"
        )
    box = (height - crop[0]) // 2, (width - crop[1]) // 2
    source, target, flow = (_cut(part, box, crop) for part in _tensors(example))
    return FlowCrop(source=source.byte(), target=target.byte(), flow=flow)


def augment(example: FlowExample, crop: tuple[int, int], rng: np.random.Generator) -> FlowCrop:
    """A distorted crop of a pair, all of it drawn from `rng`.

    Frames that are smaller than the crop are always enlarged.
    """
    source, target, flow = _tensors(example)
    size = _new_size(source.shape[1:], crop, rng)
    if size != source.shape[1:]:
        source, target = resize_image(source, size), resize_image(target, size)
        flow = resize_flow(flow, size)
    horizontal, vertical = rng.random(2) < (P_MIRROR_HORIZONTAL, P_MIRROR_VERTICAL)
    source, target = (
        mirror_image(frame, horizontal=horizontal, vertical=vertical) for frame in (source, target)
    )
    flow = mirror_flow(flow, horizontal=horizontal, vertical=vertical)
    box = int(rng.integers(size[0] - crop[0] + 1)), int(rng.integers(size[1] - crop[1] + 1))
    source, target, flow = (_cut(part, box, crop) for part in (source, target, flow))
    source, target = _jittered(torch.stack([source, target]), rng)
    return FlowCrop(source=source, target=target, flow=flow.contiguous())


def _tensors(example: FlowExample) -> tuple[Tensor, Tensor, Tensor]:
    source, target, flow = (
        torch.from_numpy(np.ascontiguousarray(part.transpose(2, 0, 1), np.float32))
        for part in (example.source, example.target, example.flow)
    )
    return source, target, flow


def _cut(part: Tensor, box: tuple[int, int], crop: tuple[int, int]) -> Tensor:
    return part[:, box[0] : box[0] + crop[0], box[1] : box[1] + crop[1]]


def _new_size(
    size: tuple[int, ...], crop: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int]:
    """Height and width that the frames are resized to; their own if they are not."""
    octaves = np.full(2, rng.uniform(*RESIZE_OCTAVES))
    stretch = rng.uniform(*STRETCH_OCTAVES, size=2)
    is_resized, is_stretched = rng.random(2) < (P_RESIZE, P_STRETCH)
    if is_stretched:
        octaves += stretch
    is_small = size[0] < crop[0] or size[1] < crop[1]
    if not (is_resized or is_small):
        return size[0], size[1]
    least = max((crop[0] + MARGIN_PIXELS) / size[0], (crop[1] + MARGIN_PIXELS) / size[1])
    height, width = np.rint(np.array(size) * np.maximum(2**octaves, least)).astype(int).tolist()
    return height, width


def _jittered(frames: Tensor, rng: np.random.Generator) -> Tensor:
    """Bytes of both frames, floats in [0, 255] of shape (2, 3, H, W), with other colours."""
    num_draws = 2 if rng.random() < P_SEPARATE_JITTER else 1
    factors = np.array(NEUTRAL) + rng.uniform(-1, 1, (num_draws, 4)) * JITTER
    order = rng.permuted(np.tile(np.arange(4), (num_draws, 1)), axis=1)
    both, neither = np.ones(2, bool), np.zeros(2, bool)
    parameters = ColourParameters(
        jitter=both,
        factors=np.broadcast_to(factors.astype(np.float32), (2, 4)),
        order=np.broadcast_to(order, (2, 4)),
        grey=neither,
        blur_sigma=np.zeros(2, np.float32),
        solarise=neither,
    )
    return apply_colour(frames, parameters).round().to(torch.uint8)
