"""Appearance of the synthetic world: textures, colours and outlines of its surfaces.

All are functions of surface coordinates in pixels, so that a surface can be rendered exactly at any
position, angle and time. Only the texture family identifies a class: colours, outline, angle, phase
and period have the same distributions for all classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from midway.data.images import LUMA

Array = NDArray[np.floating]
MIN_CONTRAST = 0.3
"""Minimum difference in luma between the two colours of a texture."""


def stripes(x: Array, y: Array) -> Array:
    """Return the wave of straight bands."""
    return np.sin(x) + 0 * y


def checks(x: Array, y: Array) -> Array:
    """Return the wave of a chessboard."""
    return 1.5 * np.sin(x) * np.sin(y)


def dots(x: Array, y: Array) -> Array:
    """Return the wave of round dots in a hexagonal lattice, which cover half of the area."""
    tilt = 0.75**0.5 * y
    return 0.3 + 0.8 * (np.cos(x) + np.cos(0.5 * x + tilt) + np.cos(0.5 * x - tilt))


def rings(x: Array, y: Array) -> Array:
    """Return the wave of concentric rings about the origin."""
    return np.sin(np.hypot(x, y))


def chevrons(x: Array, y: Array) -> Array:
    """Return the wave of zigzag bands."""
    return np.sin(0.5**0.5 * (y + 2 * np.arcsin(np.sin(0.5 * x))))


TEXTURES: dict[str, Callable[[Array, Array], Array]] = {
    "stripes": stripes,
    "checks": checks,
    "dots": dots,
    "rings": rings,
    "chevrons": chevrons,
}
"""Wave of each texture family, about -1 to 1 with mean 0; a period is 2 pi in its arguments."""


def mix(first: Array, second: Array, wave: Array) -> Array:
    """Blend colours (..., 3): `first` where `wave` (...) is below -0.5, `second` above 0.5."""
    return first + np.clip(wave + 0.5, 0, 1)[..., None] * (second - first)


def contrasting_colours(rng: np.random.Generator, saturation: float) -> Array:
    """Draw two RGB colours in [0, 1] that differ in luma by `MIN_CONTRAST`, shape (2, 3)."""
    while True:
        colours = rng.uniform(0.05, 0.95, (2, 3))
        grey = (colours @ LUMA)[:, None]
        colours = grey + saturation * (colours - grey)
        if abs(np.subtract(*colours @ LUMA)) > MIN_CONTRAST:
            return colours.astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Texture:
    """Texture in two colours, with a linear brightness gradient."""

    family: str
    """Key of `TEXTURES`."""
    colours: Array
    """RGB in [0, 1], shape (2, 3)."""
    waves: Array
    """Wave vectors of the family's two arguments, in radians per pixel, shape (2, 2)."""
    phase: Array
    """Phases of the two arguments in radians, shape (2,)."""
    light: Array
    """Relative change of brightness per pixel along x and y, shape (2,)."""

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
        """Draw a texture of `family` for an object with a diameter of `size` pixels."""
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
        """Return RGB at surface points, shape (..., 3); it may slightly exceed [0, 1]."""
        along, across = (
            wave[0] * x + wave[1] * y + phase
            for wave, phase in zip(self.waves, self.phase, strict=True)
        )
        wave = TEXTURES[self.family](along, across)
        shade = 1 + self.light[0] * x + self.light[1] * y
        return mix(self.colours[0], self.colours[1], wave) * shade[..., None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Blots:
    """Backdrop of smooth, non-repeating blots in four colours."""

    colours: Array
    """RGB in [0, 1], shape (4, 3)."""
    waves: Array
    """Wave vectors of three fields in radians per pixel, shape (3, waves, 2)."""
    phases: Array
    """Phases in radians, shape (3, waves)."""

    @classmethod
    def random(
        cls, rng: np.random.Generator, *, saturation: float, periods: tuple[float, ...]
    ) -> Self:
        """Draw a backdrop with wave periods between the limits `periods`, in pixels."""
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
        """Return RGB in [0, 1] at surface points, shape (..., 3)."""
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
    """Backdrop with unique local appearance: each channel is a sum of waves of many periods."""

    waves: Array
    """Wave vectors in radians per pixel, shape (3, waves, 2)."""
    phases: Array
    """Phases in radians, shape (3, waves)."""
    saturation: float
    """Saturation of the colours: 1 for any colour, 0 for greys."""

    NUM_WAVES = 24
    CONTRAST = 0.22
    """Standard deviation of a channel; its mean is 0.5."""

    @classmethod
    def random(
        cls, rng: np.random.Generator, *, saturation: float, periods: tuple[float, ...]
    ) -> Self:
        """Draw a backdrop with wave periods between the limits `periods`, in pixels."""
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
        """Return RGB at surface points, shape (..., 3); most values are in [0, 1]."""
        gain = self.CONTRAST / np.sqrt(self.NUM_WAVES / 2)
        channels = [
            np.sin(np.multiply.outer(x, u) + np.multiply.outer(y, v) + phases).sum(-1)
            for (u, v), phases in zip(self.waves.transpose(0, 2, 1), self.phases, strict=True)
        ]
        colours = 0.5 + gain * np.stack(channels, axis=-1)
        grey = (colours @ LUMA)[..., None]
        return grey + self.saturation * (colours - grey)


Backdrop = Blots | Clouds
BACKDROPS: dict[str, type[Backdrop]] = {"blots": Blots, "clouds": Clouds}


@dataclass(frozen=True, kw_only=True)
class Outline:
    """Closed curve around the origin: ellipse, rounded box or star."""

    half_width: float
    """Half of the width in pixels."""
    half_height: float
    """Half of the height in pixels."""
    squareness: float
    """Exponent of the superellipse: 2 is an ellipse, higher values approach a box."""
    num_lobes: int
    """Number of points of the star."""
    lobe_depth: float
    """Relative modulation of the radius; 0 for no star."""

    @classmethod
    def random(cls, rng: np.random.Generator, *, size: float) -> Self:
        """Draw an outline with a longer diameter of `size` pixels."""
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
        """Upper bound on the distance of the curve from the origin, in pixels."""
        return float(np.hypot(self.half_width, self.half_height)) * (1 + self.lobe_depth)

    def distance(self, x: Array, y: Array) -> Array:
        """Return the approximate signed distance to the curve in pixels, negative inside."""
        power = self.squareness
        level = (np.abs(x / self.half_width) ** power + np.abs(y / self.half_height) ** power) ** (
            1 / power
        )
        lobes = 1 + self.lobe_depth * np.cos(self.num_lobes * np.arctan2(y, x))
        return (level / lobes - 1) * self.half_height
