"""Looks of the synthetic world: textures, colours and outlines of its surfaces.

All are functions of a surface's own coordinates in pixels, so that a surface can be drawn exactly
at any place, angle and time. Only the texture family tells a class: colours, outline, angle, phase
and period are drawn from the same distributions for all classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

LUMINANCE = np.array([0.299, 0.587, 0.114])
MIN_CONTRAST = 0.3


def stripes(x: Array, y: Array) -> Array:
    """Straight bands."""
    return np.sin(x) + 0 * y


def checks(x: Array, y: Array) -> Array:
    """Chessboard."""
    return 1.5 * np.sin(x) * np.sin(y)


def dots(x: Array, y: Array) -> Array:
    """Round dots in a hexagonal lattice, half of the area."""
    tilt = 0.75**0.5 * y
    return 0.3 + 0.8 * (np.cos(x) + np.cos(0.5 * x + tilt) + np.cos(0.5 * x - tilt))


def rings(x: Array, y: Array) -> Array:
    """Circles round the origin."""
    return np.sin(np.hypot(x, y))


def chevrons(x: Array, y: Array) -> Array:
    """Zigzag bands."""
    return np.sin(0.5**0.5 * (y + 2 * np.arcsin(np.sin(0.5 * x))))


TEXTURES: dict[str, Callable[[Array, Array], Array]] = {
    "stripes": stripes,
    "checks": checks,
    "dots": dots,
    "rings": rings,
    "chevrons": chevrons,
}
"""Wave of each family, about -1 to 1 with mean 0, its arguments in radians of one period."""


def mix(first: Array, second: Array, wave: Array) -> Array:
    """Colours (..., 3): `first` where `wave` (...) is below -0.5, `second` above 0.5."""
    return first + np.clip(wave + 0.5, 0, 1)[..., None] * (second - first)


def contrasting_colours(rng: np.random.Generator, saturation: float) -> Array:
    """Two random RGB colours in 0 to 1 that also differ in brightness, shape (2, 3)."""
    while True:
        colours = rng.uniform(0.05, 0.95, (2, 3))
        grey = (colours @ LUMINANCE)[:, None]
        colours = grey + saturation * (colours - grey)
        if abs(np.subtract(*colours @ LUMINANCE)) > MIN_CONTRAST:
            return colours.astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Texture:
    """A texture family in two colours, under soft light from one side."""

    family: str
    colours: Array
    waves: Array
    """Wave vectors of the family's x and y, in radians per pixel, shape (2, 2)."""
    phase: Array
    light: Array
    """Relative change of brightness per pixel along x and y."""

    @classmethod
    def random(
        cls,
        rng: np.random.Generator,
        family: str,
        *,
        period_pixels: tuple[float, float],
        saturation: float,
        size: float,
    ) -> Self:
        """A texture of `family` for an object `size` pixels across."""
        angle, light_angle = rng.uniform(0, 2 * np.pi, 2)
        cos, sin = np.cos(angle), np.sin(angle)
        rotation = np.array([[cos, sin], [-sin, cos]])
        light = np.array([np.cos(light_angle), np.sin(light_angle)]) * rng.uniform(0, 0.5) / size
        return cls(
            family=family,
            colours=contrasting_colours(rng, saturation),
            waves=(2 * np.pi / rng.uniform(*period_pixels) * rotation).astype(np.float32),
            phase=rng.uniform(-np.pi, np.pi, 2).astype(np.float32),
            light=light.astype(np.float32),
        )

    def colour(self, x: Array, y: Array) -> Array:
        """RGB in 0 to 1, or a little beyond, shape (..., 3)."""
        along, across = (
            wave[0] * x + wave[1] * y + phase
            for wave, phase in zip(self.waves, self.phase, strict=True)
        )
        wave = TEXTURES[self.family](along, across)
        shade = 1 + self.light[0] * x + self.light[1] * y
        return mix(self.colours[0], self.colours[1], wave) * shade[..., None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Blots:
    """Smooth blots of four colours without end or repetition."""

    colours: Array
    waves: Array
    """Wave vectors in radians per pixel of three fields, shape (3, waves, 2)."""
    phases: Array

    @classmethod
    def random(
        cls, rng: np.random.Generator, *, saturation: float, periods: tuple[float, ...]
    ) -> Self:
        """A backdrop of waves between the shortest and the longest of `periods`, in pixels."""
        shape = (3, 4)
        angle = rng.uniform(0, 2 * np.pi, shape)
        number = 2 * np.pi / rng.uniform(min(periods), max(periods), shape)
        return cls(
            colours=np.concatenate([contrasting_colours(rng, saturation) for _ in range(2)]),
            waves=(number * np.array([np.cos(angle), np.sin(angle)]))
            .transpose(1, 2, 0)
            .astype(np.float32),
            phases=rng.uniform(0, 2 * np.pi, shape).astype(np.float32),
        )

    def colour(self, x: Array, y: Array) -> Array:
        """RGB in 0 to 1, shape (..., 3)."""
        fields = []
        for waves, phases in zip(self.waves, self.phases, strict=True):
            terms = [
                np.sin(u * x + v * y + phase) for (u, v), phase in zip(waves, phases, strict=True)
            ]
            fields.append(np.add.reduce(terms))
        first, second, third, fourth = self.colours
        return mix(mix(first, second, fields[0]), mix(third, fourth, fields[1]), fields[2])


@dataclass(frozen=True, kw_only=True, eq=False)
class Clouds:
    """A backdrop of which no two places look alike: waves of all periods in each colour."""

    waves: Array
    """Wave vectors in radians per pixel, shape (3, waves, 2)."""
    phases: Array
    saturation: float

    NUM_WAVES = 24
    CONTRAST = 0.22
    """Standard deviation of a channel, whose mean is 0.5."""

    @classmethod
    def random(
        cls, rng: np.random.Generator, *, saturation: float, periods: tuple[float, ...]
    ) -> Self:
        """Clouds with waves between the shortest and the longest of `periods`, in pixels."""
        shape = (3, cls.NUM_WAVES)
        angle = rng.uniform(0, 2 * np.pi, shape)
        period = np.exp(rng.uniform(np.log(min(periods)), np.log(max(periods)), shape))
        return cls(
            waves=(2 * np.pi / period * np.array([np.cos(angle), np.sin(angle)]))
            .transpose(1, 2, 0)
            .astype(np.float32),
            phases=rng.uniform(0, 2 * np.pi, shape).astype(np.float32),
            saturation=saturation,
        )

    def colour(self, x: Array, y: Array) -> Array:
        """RGB, most of it in 0 to 1, shape (..., 3)."""
        gain = self.CONTRAST / np.sqrt(self.NUM_WAVES / 2)
        channels = [
            np.sin(np.multiply.outer(x, u) + np.multiply.outer(y, v) + phases).sum(-1)
            for (u, v), phases in zip(self.waves.transpose(0, 2, 1), self.phases, strict=True)
        ]
        colours = 0.5 + gain * np.stack(channels, axis=-1)
        grey = (colours @ LUMINANCE)[..., None]
        return grey + self.saturation * (colours - grey)


Backdrop = Blots | Clouds
BACKDROPS: dict[str, type[Backdrop]] = {"blots": Blots, "clouds": Clouds}


@dataclass(frozen=True, kw_only=True)
class Outline:
    """Ellipse, rounded box or star, as one closed curve round the origin."""

    half_width: float
    half_height: float
    squareness: float
    """Exponent of the superellipse: 2 is an ellipse, more is a box."""
    num_lobes: int
    lobe_depth: float

    @classmethod
    def random(cls, rng: np.random.Generator, *, size: float) -> Self:
        """An outline `size` pixels across in its longer direction."""
        squareness, lobe_depth = ((2, 0), (6, 0), (2, 0.22))[rng.integers(3)]
        return cls(
            half_width=0.5 * size,
            half_height=0.5 * size * rng.uniform(0.7, 1),
            squareness=squareness,
            num_lobes=int(rng.integers(3, 7)),
            lobe_depth=lobe_depth,
        )

    @property
    def radius(self) -> float:
        """No point of the curve is farther from the origin."""
        return float(np.hypot(self.half_width, self.half_height)) * (1 + self.lobe_depth)

    def distance(self, x: Array, y: Array) -> Array:
        """About the distance to the curve in pixels, below zero inside."""
        power = self.squareness
        level = (np.abs(x / self.half_width) ** power + np.abs(y / self.half_height) ** power) ** (
            1 / power
        )
        lobes = 1 + self.lobe_depth * np.cos(self.num_lobes * np.arctan2(y, x))
        return (level / lobes - 1) * self.half_height
