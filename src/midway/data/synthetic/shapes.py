"""Shapes of the recognition world: objects composed of parts, and their classes.

A part is a capsule, a line segment with rounded ends. All classes have parts of the same thickness;
only their number and arrangement identify the class. Angles and lengths are drawn for each object,
within ranges that do not overlap between classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import cos, pi, sin
from typing import Self

import numpy as np

from midway.data.synthetic.rigid import Array, rounded

MEAN_LENGTH = 1.55
"""Mean length of all axes of an object, in units of its size."""

Skeleton = list[tuple[float, float, float, float]]
"""Segments (x, y, x, y) of an object in units of its size, about the origin."""


def star(rng: np.random.Generator, arms: int, jitter: float) -> Skeleton:
    """Return arms from the origin at equal angles, each turned and shortened a little."""
    angles = [pi / 2 + 2 * pi * arm / arms + rng.uniform(-jitter, jitter) for arm in range(arms)]
    lengths = rng.uniform(0.32, 0.40, arms).tolist()
    return [
        (0.0, 0.0, length * cos(angle), length * sin(angle))
        for angle, length in zip(angles, lengths, strict=True)
    ]


def chain(lengths: list[float], turns: list[float]) -> Skeleton:
    """Return connected segments, each turned by an angle in radians from the one before."""
    points, angle = [(0.0, 0.0)], 0.0
    for length, turn in zip(lengths, [0.0, *turns], strict=True):
        angle += turn
        x, y = points[-1]
        points.append((x + length * cos(angle), y + length * sin(angle)))
    middle_x, middle_y = ((min(values) + max(values)) / 2 for values in zip(*points, strict=True))
    return [
        (x - middle_x, y - middle_y, u - middle_x, v - middle_y)
        for (x, y), (u, v) in pairwise(points)
    ]


def cross(rng: np.random.Generator) -> Skeleton:
    """Four arms at right angles."""
    return star(rng, 4, 0.15)


def fork(rng: np.random.Generator) -> Skeleton:
    """Three arms at equal angles."""
    return star(rng, 3, 0.2)


def ring(rng: np.random.Generator) -> Skeleton:
    """Closed chain of six segments around a hole."""
    radii = rng.uniform(0.30, 0.36, 6)
    points = [(r * cos(pi * i / 3), r * sin(pi * i / 3)) for i, r in enumerate(radii.tolist())]
    return [(*a, *b) for a, b in zip(points, [*points[1:], points[0]], strict=True)]


def hook(rng: np.random.Generator) -> Skeleton:
    """Three segments that turn to the same side."""
    turns = rng.uniform(1.25, 1.6, 2).tolist()
    return chain(rng.uniform(0.48, 0.56, 3).tolist(), turns)


def zigzag(rng: np.random.Generator) -> Skeleton:
    """Three segments that turn to one side, then to the other."""
    there, back = rng.uniform(1.6, 1.95, 2).tolist()
    return chain(rng.uniform(0.46, 0.54, 3).tolist(), [there, -back])


def ladder(rng: np.random.Generator) -> Skeleton:
    """Two parallel bars, joined in the middle."""
    half, apart = rng.uniform(0.30, 0.36), rng.uniform(0.25, 0.29)
    return [
        (-half, -apart, half, -apart),
        (-half, apart, half, apart),
        (0.0, -apart, 0.0, apart),
    ]


SHAPES: dict[str, Callable[[np.random.Generator], Skeleton]] = {
    "cross": cross,
    "fork": fork,
    "ring": ring,
    "hook": hook,
    "zigzag": zigzag,
    "ladder": ladder,
}
"""Skeleton of each class."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Shape:
    """Union of capsules of one thickness around the origin, in pixels."""

    segments: Array
    """Ends (x, y, x, y) of the capsules' axes, shape (parts, 4), float32."""
    half_thickness: float

    @classmethod
    def random(cls, rng: np.random.Generator, name: str, *, size: float, thickness: float) -> Self:
        """Draw a shape of a class.

        Args:
            rng: Source of all random numbers.
            name: Key of `SHAPES`.
            size: Approximate diameter in pixels.
            thickness: Thickness of the parts as a fraction of `size`.

        """
        segments = np.array(SHAPES[name](rng))
        length = np.sqrt(((segments[:, :2] - segments[:, 2:]) ** 2).sum(1)).sum()
        # Classes with long axes would have larger areas: bring them halfway to one length.
        segments *= size * np.sqrt(MEAN_LENGTH / length)
        segments[:, ::2] *= rng.choice([-1, 1])  # mirrored or not
        return cls(
            segments=rounded(segments).astype(np.float32),
            half_thickness=float(rounded(size * thickness / 2)),
        )

    @property
    def radius(self) -> float:
        """Upper bound on the distance of the outline from the origin, in pixels."""
        ends = self.segments.reshape(-1, 2)
        return float(np.sqrt((ends**2).sum(axis=1)).max()) + self.half_thickness

    def distance(self, x: Array, y: Array) -> Array:
        """Return the signed distance to the outline in pixels, negative inside."""
        nearest = None
        for ax, ay, bx, by in self.segments.tolist():
            dx, dy = bx - ax, by - ay
            # Position of the nearest point on the axis, 0 to 1; a point-like axis would divide 0/0.
            along = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0, 1)
            off_x, off_y = x - ax - along * dx, y - ay - along * dy
            squared = off_x * off_x + off_y * off_y
            nearest = squared if nearest is None else np.minimum(nearest, squared)
        assert nearest is not None
        return np.sqrt(nearest) - self.half_thickness
