"""The crops of a pair of frames that training sees: drawn per sample, rendered per batch.

`draw_views` decides everything random about one pair, on the CPU and cheaply, so it may run in a
loader's worker. All views of a pair lie in two windows of its frames, less than half of them, so
`cut_windows` keeps only these to travel. `render_views` makes the views of a whole batch of
windows, on their device.

Views come in this order, source before target within each kind: 2 motion crops, 4 global crops
(1 and 2 of the source, 1 and 2 of the target), then the local crops. Their photometric part is of
kind A, B or C: A blurs always, B seldom and solarises at times, C blurs every other time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from midway.data.distortion import ColourParameters, draw_colour, undistorted
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
    distort_colours: bool = True
    """Whether colours are changed at random, and crops blurred and solarised."""

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
    """Everything random about the views of one pair, or of a batch of B pairs: arrays."""

    windows: NDArray[np.int64]
    """Top, left, height and width in pixels of the frames, the same in both: the motion crop, and
    the initial crop that holds all other views. Shape (2, 4) or (2, B, 4)."""
    boxes: NDArray[np.int64]
    """Likewise of each view inside its window, shape (views, 4) or (views, B, 4)."""
    flip: NDArray[np.bool_]
    """Whether a view is mirrored left to right, shape (views,) or (views, B)."""
    colour: ColourParameters
    """Photometric part, with the leading axes (views,) or (views, B)."""


def draw_views(
    config: ViewsConfig, height: int, width: int, rng: np.random.Generator
) -> ViewParameters:
    """Draw the views of one pair of frames of `height` x `width` pixels.

    Args:
        config: Sizes and shares of the crops.
        height: Of both frames, in pixels.
        width: Of both frames, in pixels.
        rng: The only source of randomness.
    """
    frame_areas = np.array((config.motion_area, config.initial_area))
    windows = draw_boxes((height, width), frame_areas, config.aspect, rng)
    num_locals = 2 * config.num_local
    areas = np.array([config.global_area] * 2 + [config.local_area] * num_locals)
    inner = draw_boxes(tuple(windows[1, 2:].tolist()), areas, config.aspect, rng)
    motion = np.array([[0, 0, *windows[0, 2:]]] * 2)
    flip = rng.random(len(inner)) < P_FLIP
    kinds = "AB" + "AB" * 2 + "C" * num_locals
    return ViewParameters(
        windows=windows,
        boxes=np.concatenate((motion, inner[:2], inner)),
        flip=np.concatenate(([False, False], flip[:2], flip)),
        colour=draw_colour(
            np.array([P_BLUR[kind] for kind in kinds]),
            np.array([P_SOLARISE[kind] for kind in kinds]),
            rng,
        )
        if config.distort_colours
        else undistorted(len(kinds)),
    )


def draw_boxes(
    size: tuple[int, int],
    areas: NDArray[np.float64],
    aspect: tuple[float, float],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Boxes of random area, aspect and place: the usual random resized crop, all at once.

    Args:
        size: Height and width of what the boxes lie in, in pixels.
        areas: Smallest and largest share of it, for each box, shape (V, 2).
        aspect: Smallest and largest width over height; its logarithm is uniform.
        rng: The only source of randomness.

    Returns:
        Top, left, height and width of each box, shape (V, 4).
    """
    height, width = size
    num_boxes = len(areas)
    chance = rng.random((2, num_boxes, TRIES))
    place = rng.random((num_boxes, 2))
    side = np.sqrt(height * width * (areas[:, :1] + (areas[:, 1:] - areas[:, :1]) * chance[0]))
    low, high = math.log(aspect[0]), math.log(aspect[1])
    root = np.exp(0.5 * (low + (high - low) * chance[1]))
    extents = np.stack((side / root, side * root), axis=2).round()
    largest = (
        max(1, min(height, round(width / aspect[0]))),
        max(1, min(width, round(height * aspect[1]))),
    )
    fits = np.all((extents >= 1) & (extents <= size), axis=2)
    first = fits.argmax(1)
    each = np.arange(num_boxes)
    found = fits[each, first, None]
    extent = np.where(found, extents[each, first], largest)
    place = np.where(found, place, 0.5)
    corner = np.floor(place * (size - extent + 1))
    return np.concatenate((corner, extent), axis=1).astype(np.int64)


def stack_views(parameters: Sequence[ViewParameters]) -> ViewParameters:
    """The parameters of a batch; the pairs become the axis after the views."""
    return ViewParameters(
        windows=np.stack([each.windows for each in parameters], axis=1),
        boxes=np.stack([each.boxes for each in parameters], axis=1),
        flip=np.stack([each.flip for each in parameters], axis=1),
        colour=ColourParameters.stack([each.colour for each in parameters]),
    )


def cut_windows(
    parameters: ViewParameters, source: NDArray[np.uint8], target: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The two windows of a pair that its views are made of.

    Args:
        parameters: Those of the pair, from `draw_views`.
        source: First frame, shape (H, W, 3).
        target: Second frame, of the same shape.

    Returns:
        Copies of source and target for each window, shape (2, height, width, 3).
    """
    motion, initial = (
        np.stack([frame[top : top + rows, left : left + columns] for frame in (source, target)])
        for top, left, rows, columns in parameters.windows.tolist()
    )
    return motion, initial
