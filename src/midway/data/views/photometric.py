"""Photometric augmentation as it is drawn: colour jitter, grey, blur and solarisation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from midway.errors import MidwayError

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
NEUTRAL = (1.0, 1.0, 1.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Photometric:
    """Photometric recipe of one crop; the defaults are the jitter and grey of DINO and the paper.

    Raises:
        MidwayError: A probability or a range that cannot be.

    """

    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    """Largest change of the factors of brightness, contrast and saturation, and of the hue in
    turns (0.5 covers the whole circle)."""
    p_jitter: float = 0.8
    p_grey: float = 0.2
    p_blur: float = 0.0
    p_solarise: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Range of the Gaussian's standard deviation, in pixels of the crop."""

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
    """Photometric augmentation drawn for each image: arrays with the same leading axes."""

    jitter: NDArray[np.bool_]
    """Whether brightness, contrast, saturation and hue change at all, shape (...)."""
    factors: NDArray[np.float32]
    """Three factors, then the hue in turns; shape (..., 4)."""
    order: NDArray[np.int64]
    """Which of the four comes first, second, third and fourth, shape (..., 4)."""
    grey: NDArray[np.bool_]
    """Whether the colours are dropped, shape (...)."""
    blur_sigma: NDArray[np.float32]
    """Standard deviation of the blur in pixels, 0 for none, shape (...)."""
    solarise: NDArray[np.bool_]
    """Whether bright pixels are inverted, shape (...)."""

    @classmethod
    def stack(cls, parameters: Sequence["ColourParameters"]) -> "ColourParameters":
        """Put the parameters of several samples along a new second axis."""
        return cls(
            **{
                name: np.stack([getattr(each, name) for each in parameters], axis=1)
                for name in vars(parameters[0])
            }
        )

    def flatten(self, views: slice) -> "ColourParameters":
        """Select entries of the first axis, and merge that axis with the next."""
        chosen = {name: value[views] for name, value in vars(self).items()}
        return ColourParameters(
            **{name: value.reshape(-1, *value.shape[2:]) for name, value in chosen.items()}
        )


def draw_colour(
    recipes: Sequence[Photometric | None], rng: np.random.Generator
) -> ColourParameters:
    """Draw the photometric parameters of one image per recipe.

    Args:
        recipes: One a image; None leaves its colours as they are, and draws nothing.
        rng: The only source of randomness.

    Returns:
        Parameters with the leading axis (len(recipes),).

    """
    parameters = undistorted(len(recipes))
    drawn = [place for place, recipe in enumerate(recipes) if recipe is not None]
    if not drawn:
        return parameters
    given = [recipe for recipe in recipes if recipe is not None]
    num_images = len(given)
    chance, factors, order = rng.random((3, num_images, 4))
    low, high = np.array([recipe.blur_sigma for recipe in given]).T
    sigma = low + (high - low) * rng.random(num_images)
    jitter = np.array([recipe.jitter for recipe in given])
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
    """Return parameters that leave the colours of `num_images` images as they are."""
    return ColourParameters(
        jitter=np.zeros(num_images, np.bool_),
        factors=np.tile(np.array(NEUTRAL, np.float32), (num_images, 1)),
        order=np.tile(np.arange(4), (num_images, 1)),
        grey=np.zeros(num_images, np.bool_),
        blur_sigma=np.zeros(num_images, np.float32),
        solarise=np.zeros(num_images, np.bool_),
    )
