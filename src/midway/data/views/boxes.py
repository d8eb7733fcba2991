"""Random boxes: random resized crops of a parent image, boxes of fixed size, and lattice boxes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from midway.errors import MidwayError

TRIES = 10
"""Attempts to draw a box that fits into the parent; the fallback is the largest central box."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """Random resized crop.

    Raises:
        MidwayError: A range is empty or out of bounds.

    """

    area: tuple[float, float]
    """Range of the box's area, as a fraction of the parent's."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of width / height."""

    def __post_init__(self) -> None:
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise MidwayError(f"bad range: area is {self.area}; give 0 < low <= high <= 1")
        if not 0 < self.aspect[0] <= self.aspect[1] < math.inf:
            raise MidwayError(f"bad range: aspect is {self.aspect}; give 0 < low <= high")


@dataclass(frozen=True, kw_only=True)
class FixedBox:
    """Box of fixed size at a random position, clipped to the size of the parent.

    Raises:
        MidwayError: The box has no pixels.

    """

    size: tuple[int, int]
    """Height and width in pixels."""

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise MidwayError(f"bad box: size is {self.size}; give a height and width above 0")


@dataclass(frozen=True, kw_only=True)
class LatticeBox:
    """Box of whole parts of the parent, at a random position.

    Two boxes of one parent are a whole number of parts apart along each side, to the nearest pixel
    where the parent is not divisible.

    Raises:
        MidwayError: The box has no parts, or more than the parent.

    """

    covered: int
    """Parts along each side of the box."""
    parts: int
    """Parts along each side of the parent."""

    def __post_init__(self) -> None:
        if not 1 <= self.covered <= self.parts:
            raise MidwayError(
                f"bad box: {self.covered} of {self.parts} parts; give 1 or more, at most all parts"
            )


AnyBox = Box | FixedBox | LatticeBox


def draw_boxes(
    sizes: NDArray[np.int64], boxes: Sequence[AnyBox], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw area, aspect ratio and position of several boxes.

    Args:
        sizes: Height and width of the parent of each box in pixels, shape (V, 2).
        boxes: The V boxes.
        rng: Source of all random numbers.

    Returns:
        Top, left, height and width of each box in pixels, shape (V, 4).

    """
    num_boxes = len(boxes)
    chance = rng.random((2, num_boxes, TRIES))
    place = rng.random((num_boxes, 2))
    # Other boxes are drawn like random ones and overwritten below, so the draw is vectorised.
    random = [box if isinstance(box, Box) else Box(area=(1.0, 1.0)) for box in boxes]
    areas = np.array([box.area for box in random])  # (V, 2)
    low, high = np.array([[math.log(limit) for limit in box.aspect] for box in random]).T[..., None]
    # Uniform area, log-uniform aspect ratio: side and root are (V, TRIES), low and high (V, 1).
    side = np.sqrt(sizes.prod(1)[:, None] * (areas[:, :1] + np.diff(areas) * chance[0]))
    root = np.exp(0.5 * (low + (high - low) * chance[1]))
    extents = np.stack((side / root, side * root), axis=2).round()  # (V, TRIES, 2)
    fits = np.all((extents >= 1) & (extents <= sizes[:, None]), axis=2)
    each, first = np.arange(num_boxes), fits.argmax(1)
    found = fits[each, first, None]  # (V, 1)
    parents = [(height, width) for height, width in sizes.tolist()]
    largest = [_largest(*parent, box.aspect) for parent, box in zip(parents, random, strict=True)]
    extent = np.where(found, extents[each, first], largest)
    for index, (box, parent) in enumerate(zip(boxes, parents, strict=True)):
        if isinstance(box, FixedBox):
            found[index] = True
            extent[index] = np.minimum(box.size, parent)
        elif isinstance(box, LatticeBox):
            extent[index] = np.maximum(1, np.round(sizes[index] * box.covered / box.parts))
    corner = np.floor(np.where(found, place, 0.5) * (sizes - extent + 1))  # (V, 2)
    for index, box in enumerate(boxes):
        if isinstance(box, LatticeBox):
            step = np.floor(place[index] * (box.parts - box.covered + 1))
            corner[index] = np.minimum(
                np.round(sizes[index] * step / box.parts), sizes[index] - extent[index]
            )
    return np.concatenate((corner, extent), axis=1).astype(np.int64)


def _largest(height: int, width: int, aspect: tuple[float, float]) -> tuple[int, int]:
    """Return height and width of the largest box with an aspect ratio in the range."""
    return (
        max(1, min(height, round(width / aspect[0]))),
        max(1, min(width, round(height * aspect[1]))),
    )
