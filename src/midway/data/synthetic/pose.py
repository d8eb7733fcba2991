"""Arithmetic of the recognition world, equal bit for bit on all machines.

Sines and random numbers may differ by a unit in the last place between platforms, so they are
rounded to `GRID` before use. All arithmetic on pixels is +, -, *, /, square root, floor and
comparisons, which IEEE 754 rounds correctly.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from midway.data.synthetic.motion import Motion

Array = NDArray[np.floating]

GRID = 2.0**-14
"""Spacing of the numbers that describe a world: pixels, shares, and colours in [0, 1]."""


def rounded(values: Array | float) -> Array:
    """Round to a multiple of `GRID`."""
    return np.rint(np.asarray(values) / GRID) * GRID


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Similarity transform of a surface at one time, from surface to image coordinates."""

    x: float
    """Position of the surface's origin in pixels."""
    y: float
    cos: float
    """Scale times the cosine of the angle."""
    sin: float

    @classmethod
    def of(cls, motion: Motion, seconds: float) -> Self:
        """Return the pose of a motion at a time, rounded."""
        x, y, cos, sin = rounded(np.array(motion.pose(seconds))).tolist()
        return cls(x=x, y=y, cos=cos, sin=sin)

    @property
    def scale(self) -> float:
        """Pixels of the image per pixel of the surface."""
        return float(np.sqrt(self.cos * self.cos + self.sin * self.sin))

    def to_image(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Convert surface coordinates to image coordinates."""
        return self.x + self.cos * x - self.sin * y, self.y + self.sin * x + self.cos * y

    def to_surface(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Convert image coordinates to surface coordinates."""
        squared = self.cos * self.cos + self.sin * self.sin
        x, y = (x - self.x) / squared, (y - self.y) / squared
        return self.cos * x + self.sin * y, self.cos * y - self.sin * x
