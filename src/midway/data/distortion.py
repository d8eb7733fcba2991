"""What is drawn for the colours of an image: jitter, grey, blur and solarisation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
NEUTRAL = (1.0, 1.0, 1.0, 0.0)
JITTER = (0.4, 0.4, 0.2, 0.1)
"""Largest change of the factors of brightness, contrast and saturation, and of the hue in turns."""
P_JITTER = 0.8
P_GREY = 0.2
BLUR_SIGMA = (0.1, 2.0)
"""Range of the Gaussian's standard deviation, in pixels of the crop."""


@dataclass(frozen=True, kw_only=True)
class ColourParameters:
    """What happens to the colours of each image: arrays with the same leading axes."""

    jitter: NDArray[np.bool_]
    """Whether brightness, contrast, saturation and hue change at all, shape (...)."""
    factors: NDArray[np.float32]
    """Three factors, then the hue in turns, at most a sixth either way; shape (..., 4)."""
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
        """The chosen entries of the first axis, with that axis and the next made one."""
        chosen = {name: value[views] for name, value in vars(self).items()}
        return ColourParameters(
            **{name: value.reshape(-1, *value.shape[2:]) for name, value in chosen.items()}
        )


def draw_colour(
    p_blur: NDArray[np.float64], p_solarise: NDArray[np.float64], rng: np.random.Generator
) -> ColourParameters:
    """Draw the photometric part of one image per entry.

    Args:
        p_blur: Probability of blur for each image, shape (V,).
        p_solarise: Probability of solarisation for each image, shape (V,).
        rng: The only source of randomness.

    Returns:
        Parameters with the leading axis (V,).
    """
    num_images = len(p_blur)
    chance, factors, order = rng.random((3, num_images, 4))
    sigma = BLUR_SIGMA[0] + (BLUR_SIGMA[1] - BLUR_SIGMA[0]) * rng.random(num_images)
    return ColourParameters(
        jitter=chance[:, 0] < P_JITTER,
        factors=(np.array(NEUTRAL) + np.array(JITTER) * (2 * factors - 1)).astype(np.float32),
        order=order.argsort(1),
        grey=chance[:, 1] < P_GREY,
        blur_sigma=(sigma * (chance[:, 2] < p_blur)).astype(np.float32),
        solarise=chance[:, 3] < p_solarise,
    )


def undistorted(num_images: int) -> ColourParameters:
    """Parameters that leave the colours of `num_images` images as they are."""
    never = np.zeros(num_images, np.bool_)
    return ColourParameters(
        jitter=never,
        factors=np.tile(np.array(NEUTRAL, np.float32), (num_images, 1)),
        order=np.tile(np.arange(4), (num_images, 1)),
        grey=never,
        blur_sigma=np.zeros(num_images, np.float32),
        solarise=never,
    )
