"""The crops of a pair of frames that training sees: drawn per sample, rendered per batch.

`draw_views` decides everything random about one pair, on the CPU and cheaply, so it may run in a
loader's worker; `render_views` makes the views of a whole batch, on the device of its frames.

Views come in this order, source before target within each kind: 2 motion crops, 4 global crops
(1 and 2 of the source, 1 and 2 of the target), then the local crops. Their photometric part is of
kind A, B or C: A blurs always, B seldom and solarises at times, C blurs every other time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from midway.data.colour import ColourParameters, apply_colour, draw_colour, normalise
from midway.data.resample import crop_resize
from midway.errors import MidwayError

P_FLIP = 0.5
P_BLUR = {"A": 1.0, "B": 0.1, "C": 0.5}
P_SOLARISE = {"A": 0.0, "B": 0.2, "C": 0.0}
TRIES = 10
"""Boxes drawn before the largest central one is taken, because none fitted into the frame."""


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """Sizes (height, width) in pixels, areas as shares, aspects as width over height."""

    motion_size: tuple[int, int] = (224, 224)
    global_size: tuple[int, int] = (224, 224)
    local_size: tuple[int, int] = (96, 96)
    num_local: int = 8
    """Local crops of each frame."""
    motion_area: tuple[float, float] = (0.2, 0.4)
    initial_area: tuple[float, float] = (0.05, 0.2)
    """Share of the frame from which the global and local crops are taken."""
    global_area: tuple[float, float] = (0.4, 1.0)
    """Share of the initial crop."""
    local_area: tuple[float, float] = (0.05, 0.4)
    """Share of the initial crop."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        for name in ("motion_size", "global_size", "local_size"):
            if min(getattr(self, name)) < 1:
                raise MidwayError(f"crop without pixels: {name}; give a height and width above 0")
        for name in ("motion_area", "initial_area", "global_area", "local_area"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise MidwayError(f"bad range: {name} is {low}-{high}; give 0 < low <= high <= 1")
        low, high = self.aspect
        if not 0 < low <= high:
            raise MidwayError(f"bad range: aspect is {low}-{high}; give 0 < low <= high")
        if self.num_local < 0:
            raise MidwayError(f"bad count: num_local is {self.num_local}; give 0 or more")


@dataclass(frozen=True, kw_only=True)
class ViewParameters:
    """Everything random about the views of one pair, or of a batch of B pairs: CPU tensors."""

    boxes: Tensor
    """Top, left, height and width in pixels of the frame, shape (views, 4) or (views, B, 4)."""
    flip: Tensor
    """Whether a view is mirrored left to right, shape (views,) or (views, B)."""
    colour: ColourParameters
    """Photometric part, with the leading axes (views,) or (views, B)."""


@dataclass(frozen=True, kw_only=True)
class Views:
    """The crops of a batch of pairs, normalised with ImageNet's mean and deviation."""

    motion: Tensor
    """Source and target at the same place, shape (2, B, 3, h, w)."""
    globals: Tensor
    """Crops 1 and 2 of the source, 1 and 2 of the target, shape (4, B, 3, h, w)."""
    locals: Tensor
    """Crops of the source, then of the target, shape (2 * num_local, B, 3, h, w)."""


def draw_views(
    config: ViewsConfig, height: int, width: int, generator: torch.Generator
) -> ViewParameters:
    """Draw the views of one pair of frames of `height` x `width` pixels.

    Args:
        config: Sizes and shares of the crops.
        height: Of both frames, in pixels.
        width: Of both frames, in pixels.
        generator: The only source of randomness.
    """
    frame_areas = torch.tensor((config.motion_area, config.initial_area), dtype=torch.float64)
    motion, initial = draw_boxes((height, width), frame_areas, config.aspect, generator)
    num_locals = 2 * config.num_local
    areas = torch.tensor(
        [config.global_area] * 2 + [config.local_area] * num_locals, dtype=torch.float64
    )
    _, _, initial_height, initial_width = initial.tolist()
    inner = draw_boxes((initial_height, initial_width), areas, config.aspect, generator)
    inner[:, :2] += initial[:2]
    flip = torch.rand(len(inner), generator=generator) < P_FLIP
    kinds = "AB" + "AB" * 2 + "C" * num_locals
    return ViewParameters(
        boxes=torch.cat((motion.expand(2, 4), inner[:2], inner)),
        flip=torch.cat((flip.new_zeros(2), flip[:2], flip)),
        colour=draw_colour(
            torch.tensor([P_BLUR[kind] for kind in kinds]),
            torch.tensor([P_SOLARISE[kind] for kind in kinds]),
            generator,
        ),
    )


def draw_boxes(
    size: tuple[int, int], areas: Tensor, aspect: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Boxes of random area, aspect and place: the usual random resized crop, all at once.

    Args:
        size: Height and width of what the boxes lie in, in pixels.
        areas: Smallest and largest share of it, for each box, float64 of shape (V, 2).
        aspect: Smallest and largest width over height; its logarithm is uniform.
        generator: The only source of randomness.

    Returns:
        Top, left, height and width of each box, integers of shape (V, 4).
    """
    height, width = size
    num_boxes = len(areas)
    chance = torch.rand(2, num_boxes, TRIES, dtype=torch.float64, generator=generator)
    place = torch.rand(num_boxes, 2, dtype=torch.float64, generator=generator)
    area = height * width * torch.lerp(areas[:, :1], areas[:, 1:], chance[0])
    low, high = math.log(aspect[0]), math.log(aspect[1])
    root = (0.5 * (low + (high - low) * chance[1])).exp()
    extents = torch.stack((area.sqrt() / root, area.sqrt() * root), dim=2).round_()
    largest = (
        max(1, min(height, round(width / aspect[0]))),
        max(1, min(width, round(height * aspect[1]))),
    )
    frame = torch.tensor(size, dtype=torch.float64)
    fits = ((extents >= 1) & (extents <= frame)).all(2)
    first = fits.to(torch.uint8).argmax(1)
    found = fits.any(1, keepdim=True)
    extent = extents[torch.arange(num_boxes), first]
    extent = torch.where(found, extent, torch.tensor(largest, dtype=torch.float64))
    place = torch.where(found, place, 0.5)
    corner = (place * (frame - extent + 1)).floor_()
    return torch.cat((corner, extent), dim=1).long()


def stack_views(parameters: Sequence[ViewParameters]) -> ViewParameters:
    """The parameters of a batch; the pairs become the axis after the views."""
    return ViewParameters(
        boxes=torch.stack([each.boxes for each in parameters], dim=1),
        flip=torch.stack([each.flip for each in parameters], dim=1),
        colour=ColourParameters.stack([each.colour for each in parameters]),
    )


def render_views(
    config: ViewsConfig, source: Tensor, target: Tensor, parameters: ViewParameters
) -> Views:
    """Cut, resize, distort and normalise all views of a batch, on the device of the frames.

    Args:
        config: The one that the parameters were drawn with.
        source: Bytes of shape (B, 3, H, W).
        target: Bytes of shape (B, 3, H, W).
        parameters: Those of the batch, from `stack_views`.
    """

    def render(first: int, per_frame: int, size: tuple[int, int]) -> Tensor:
        views = slice(first, first + 2 * per_frame)
        crops = torch.empty(2 * per_frame, len(source), 3, *size, device=source.device)
        frames = [source] * per_frame + [target] * per_frame
        places = zip(frames, parameters.boxes[views], parameters.flip[views], strict=True)
        for crop, (frame, boxes, flip) in zip(crops, places, strict=True):
            crop.copy_(crop_resize(frame, boxes, size, flip))
        apply_colour(crops.flatten(0, 1), parameters.colour.flatten(views))
        return normalise(crops)

    # The matrix products keep full precision: bfloat16 is coarser than the bytes of the frames.
    with torch.autocast(source.device.type, enabled=False):
        return Views(
            motion=render(0, 1, config.motion_size),
            globals=render(2, 2, config.global_size),
            locals=render(6, config.num_local, config.local_size),
        )
