"""Textures of the recognition world: smooth noise in two colours, drawn anew for each surface."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from midway.data.synthetic.rigid import Array, rounded

CELLS = 16
"""Cells of a noise table along each axis; the noise repeats after as many periods."""
SHARPNESS = 3.0
"""Slope of the blend between two colours, per unit of noise."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Noise:
    """Smooth random function of the plane with values in [0, 1]."""

    table: Array
    """Values at the corners of the cells, shape (CELLS, CELLS), float32."""
    waves: Array
    """Cells per pixel along two directions, shape (2, 2), float32."""

    @classmethod
    def random(cls, rng: np.random.Generator, *, periods: tuple[float, float]) -> Self:
        """Draw noise with cells of `periods` (shortest, longest) pixels, in any direction."""
        angle = rng.uniform(0, np.pi)
        first, second = 1 / rng.uniform(*periods, 2)
        cos, sin = np.cos(angle), np.sin(angle)
        waves = np.array([[cos * first, sin * first], [-sin * second, cos * second]])
        return cls(
            table=rounded(rng.uniform(0, 1, (CELLS, CELLS))).astype(np.float32),
            waves=rounded(waves).astype(np.float32),
        )

    def __call__(self, x: Array, y: Array) -> Array:
        """Return the noise at surface points."""
        (a, b), (c, d) = self.waves.tolist()
        u, v = a * x + b * y, c * x + d * y
        column, row = np.floor(u), np.floor(v)
        u, v = _smooth(u - column), _smooth(v - row)
        left, top = column.astype(np.int32) % CELLS, row.astype(np.int32) % CELLS
        right, bottom = (left + 1) % CELLS, (top + 1) % CELLS
        table = self.table
        upper = table[top, left] + u * (table[top, right] - table[top, left])
        lower = table[bottom, left] + u * (table[bottom, right] - table[bottom, left])
        return upper + v * (lower - upper)


@dataclass(frozen=True, kw_only=True, eq=False)
class Paint:
    """Two colours blended by noise."""

    noise: Noise
    colours: Array
    """RGB in [0, 1], shape (2, 3), float32."""

    @classmethod
    def random(
        cls,
        rng: np.random.Generator,
        *,
        periods: tuple[float, float],
        contrast: float,
        tones: tuple[float, float],
        saturation: float = 1.0,
    ) -> Self:
        """Draw a paint: a colour with channels in `tones`, and one within `contrast` of it.

        A `saturation` below 1 brings both nearer to grey.
        """
        base = rng.uniform(*tones, 3)
        change = rng.uniform(0.5 * contrast, contrast, 3) * rng.choice([-1, 1], 3)
        colours = np.stack([base, np.clip(base + change, 0, 1)])
        grey = colours.mean(axis=1, keepdims=True)
        colours = grey + saturation * (colours - grey)
        return cls(
            noise=Noise.random(rng, periods=periods),
            colours=rounded(colours).astype(np.float32),
        )

    def colour(self, x: Array, y: Array) -> Array:
        """Return RGB in [0, 1] at surface points, shape (..., 3)."""
        share = blend(self.noise(x, y))[..., None]
        return self.colours[0] + share * (self.colours[1] - self.colours[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class Mosaic:
    """Backdrop of two paints with smooth outlines between them.

    Without these, edges would distinguish objects from the backdrop.
    """

    paints: tuple[Paint, Paint]
    border: Noise
    sharpness: float
    """Slope of the blend between the paints, per unit of noise."""

    @classmethod
    def random(
        cls,
        rng: np.random.Generator,
        *,
        periods: tuple[float, float],
        contrast: float,
        tones: tuple[float, float],
        saturation: float,
        patches: tuple[float, float],
    ) -> Self:
        """Draw a backdrop; `patches` are the periods of its outlines in pixels."""
        first, second = (
            Paint.random(
                rng, periods=periods, contrast=contrast, tones=tones, saturation=saturation
            )
            for _ in range(2)
        )
        return cls(
            paints=(first, second),
            border=Noise.random(rng, periods=patches),
            # About as sharp as the antialiased outline of an object: one pixel.
            sharpness=float(rounded(sum(patches) / 2)),
        )

    def colour(self, x: Array, y: Array) -> Array:
        """Return RGB in [0, 1] at surface points, shape (..., 3)."""
        first, second = (paint.colour(x, y) for paint in self.paints)
        share = np.clip((self.border(x, y) - 0.5) * self.sharpness + 0.5, 0, 1)[..., None]
        return first + share * (second - first)


def blend(noise: Array) -> Array:
    """Return the share of the second colour, 0 to 1, where the noise is about 0.5."""
    return np.clip((noise - 0.5) * SHARPNESS + 0.5, 0, 1)


def _smooth(share: Array) -> Array:
    """Ease 0 to 1 with zero slope at both ends, so that cells have no visible borders."""
    return share * share * (3 - 2 * share)
