"""Parameters of the photometric augmentation: colour jitter, greyscale, blur, solarisation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from midway.errors import MidwayError

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
NEUTRAL = (1.0, 1.0, 1.0, 0.0)
"""Jitter factors that leave an image unchanged."""


@dataclass(frozen=True, kw_only=True)
class Photometric:
    """Photometric augmentation of one crop; defaults are the jitter and greyscale of DINO.

    Raises:
        MidwayError: A probability or range is out of bounds.

    """

    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    """Maximum change of the brightness, contrast and saturation factors, and of the hue in turns
    (0.5 covers the whole circle)."""
    p_jitter: float = 0.8
    p_grey: float = 0.2
    p_blur: float = 0.0
    p_solarise: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Range of the Gaussian's standard deviation in pixels of the crop."""

    def __post_init__(self) -> None:
        for name in ("p_jitter", "p_grey", "p_blur", "p_solarise"):
            if not 0 <= getattr(self, name) <= 1:
                raise MidwayError(f"photometric: {name} = {getattr(self, name)}; give 0 to 1")
        if len(self.jitter) != 4 or not all(0 <= change <= 1 for change in self.jitter):
            raise MidwayError(f"photometric: jitter = {self.jitter}; give four numbers from 0 to 1")
        low, high = self.blur_sigma
        if not 0 < low <= high < math.inf:
            raise MidwayError(f"photometric: blur_sigma = {self.blur_sigma}; give 0 < low <= high")


@dataclass(frozen=True, kw_only=True)
class ColourParameters:
    """Photometric parameters of each image; all arrays have the same leading axes."""

    jitter: NDArray[np.bool_]
    """True where the colours are jittered, shape (...)."""
    factors: NDArray[np.float32]
    """Factors of brightness, contrast and saturation, and the hue shift in turns; shape
    (..., 4)."""
    order: NDArray[np.int64]
    """Indices of the four operations in the order of their application, shape (..., 4)."""
    grey: NDArray[np.bool_]
    """True where the image becomes greyscale, shape (...)."""
    blur_sigma: NDArray[np.float32]
    """Standard deviation of the blur in pixels, 0 for no blur, shape (...)."""
    solarise: NDArray[np.bool_]
    """True where bright pixels are inverted, shape (...)."""

    @classmethod
    def stack(cls, parameters: Sequence["ColourParameters"]) -> "ColourParameters":
        """Stack the parameters of several samples along a new second axis."""
        return cls(
            **{
                name: np.stack([getattr(each, name) for each in parameters], axis=1)
                for name in vars(parameters[0])
            }
        )

    def flatten(self, views: slice) -> "ColourParameters":
        """Select entries of the first axis and merge it with the second."""
        chosen = {name: value[views] for name, value in vars(self).items()}
        return ColourParameters(
            **{name: value.reshape(-1, *value.shape[2:]) for name, value in chosen.items()}
        )


def draw_colour(
    recipes: Sequence[Photometric | None], rng: np.random.Generator
) -> ColourParameters:
    """Draw the photometric parameters of one image for each recipe.

    Args:
        recipes: One per image; None keeps the image unchanged and draws no random number.
        rng: Source of all random numbers.

    Returns:
        Parameters with the leading axis (len(recipes),).

    """
    parameters = undistorted(len(recipes))
    drawn = [place for place, recipe in enumerate(recipes) if recipe is not None]
    if not drawn:
        return parameters
    given = [recipe for recipe in recipes if recipe is not None]
    num_images = len(given)
    chance, factors, order = rng.random((3, num_images, 4))  # each (N, 4)
    low, high = np.array([recipe.blur_sigma for recipe in given]).T
    sigma = low + (high - low) * rng.random(num_images)
    jitter = np.array([recipe.jitter for recipe in given])  # (N, 4)
    p_jitter, p_grey, p_blur, p_solarise = np.array(
        [(each.p_jitter, each.p_grey, each.p_blur, each.p_solarise) for each in given]
    ).T
    parameters.jitter[drawn] = chance[:, 0] < p_jitter
    parameters.factors[drawn] = np.array(NEUTRAL) + jitter * (2 * factors - 1)
    parameters.order[drawn] = order.argsort(1)
    parameters.grey[drawn] = chance[:, 1] < p_grey
    parameters.blur_sigma[drawn] = sigma * (chance[:, 2] < p_blur)
    parameters.solarise[drawn] = chance[:, 3] < p_solarise
    return parameters


def undistorted(num_images: int) -> ColourParameters:
    """Return the parameters that keep `num_images` images unchanged."""
    return ColourParameters(
        jitter=np.zeros(num_images, np.bool_),
        factors=np.tile(np.array(NEUTRAL, np.float32), (num_images, 1)),
        order=np.tile(np.arange(4), (num_images, 1)),
        grey=np.zeros(num_images, np.bool_),
        blur_sigma=np.zeros(num_images, np.float32),
        solarise=np.zeros(num_images, np.bool_),
    )
