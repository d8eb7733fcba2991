"""Augmentation of flow pairs as in the published code of CroCo v2, the same for every dataset.

Both frames are resized, mirrored and cropped in the same way; the colour jitter differs between
them with probability 0.2. It runs in the workers, one pair at a time, because pairs differ in size.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from midway.data.flow.geometry import mirror_flow, mirror_image, resize_flow, resize_image
from midway.data.flow.pairs import FlowExample
from midway.data.views.photometric import NEUTRAL, ColourParameters
from midway.data.views.photometric_gpu import apply_colour
from midway.errors import MidwayError

P_RESIZE = 0.8
RESIZE_OCTAVES = (-0.2, 0.5)
"""Range of log2 of the common scale."""
P_STRETCH = 0.8
STRETCH_OCTAVES = (-0.2, 0.2)
"""Range of log2 of the additional scale of each axis."""
MARGIN_PIXELS = 8
"""Minimum excess of resized frames over the crop."""
P_MIRROR_HORIZONTAL, P_MIRROR_VERTICAL = 0.5, 0.1
JITTER = (0.4, 0.4, 0.4, 0.5 / 3.14)
"""Maximum change of the brightness, contrast and saturation factors, and of the hue in turns."""
P_SEPARATE_JITTER = 0.2
"""Probability of separate jitter parameters for the two frames."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FlowCrop:
    """Training crop of a pair: tensors of one size."""

    source: Tensor
    """uint8 RGB (3, H, W)."""
    target: Tensor
    """uint8 RGB (3, H, W)."""
    flow: Tensor
    """float32 (2, H, W) in pixels, not finite where unknown."""


def fixed_crop(example: FlowExample, crop: tuple[int, int]) -> FlowCrop:
    """Return the central crop of a pair, without augmentation.

    Raises:
        MidwayError: The frames are smaller than the crop.
    """
    height, width = example.source.shape[:2]
    if height < crop[0] or width < crop[1]:
        raise MidwayError(
            f"frames of {height}x{width} pixels: smaller than the crop of {crop[0]}x{crop[1]}; "
            "choose a smaller crop, or enable augmentation, which enlarges them"
        )
    box = (height - crop[0]) // 2, (width - crop[1]) // 2
    source, target, flow = (_cut(part, box, crop) for part in _tensors(example))
    return FlowCrop(source=source.byte(), target=target.byte(), flow=flow)


def augment(example: FlowExample, crop: tuple[int, int], rng: np.random.Generator) -> FlowCrop:
    """Draw an augmented crop of a pair.

    Frames smaller than the crop are always enlarged.

    Args:
        example: Pair of any size.
        crop: Height and width of the crop in pixels.
        rng: Source of all random numbers.

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
    """Convert source, target and flow to float32 tensors, channels first."""
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
    """Draw height and width of the resized frames; `size` if they are not resized."""
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
    """Jitter the colours of both frames, (2, 3, H, W) in [0, 255], and round to uint8."""
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
