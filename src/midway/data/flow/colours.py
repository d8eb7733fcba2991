"""Colour coding of flow by the Middlebury wheel."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

WHEEL_STEPS = (15, 6, 4, 11, 13, 6)
"""Hues from red to yellow, green, cyan, blue, magenta and red; more where vision is finer."""
WHEEL_CORNERS = ((1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 0, 0))
"""RGB at the start of each segment of the wheel, and at its end."""
OVERFLOW_BRIGHTNESS = 0.75
"""Brightness of flow above the maximum."""
UNKNOWN_FLOW = 1e9
"""Flow is unknown if a component exceeds this value."""


def longest_pixels(flow: NDArray[Any]) -> float:
    """Return the largest magnitude of known flow (..., 2) in pixels, at least 1."""
    lengths = np.hypot(flow[..., 0], flow[..., 1])
    return max(1.0, float(lengths[lengths < UNKNOWN_FLOW].max(initial=0)))


def flow_to_rgb(flow: NDArray[Any], max_pixels: float) -> NDArray[np.uint8]:
    """Return the colours of flow by the Middlebury wheel (Baker et al., IJCV 2011).

    Right is red, down yellow, left cyan, up blue. Zero motion is white, motion of `max_pixels` is
    fully saturated, longer motion is darker, and unknown motion (not finite, or above 1e9) is
    black.

    Args:
        flow: Flow in pixels, shape (..., 2).
        max_pixels: Magnitude with full saturation.

    Returns:
        RGB, shape (..., 3).

    """
    known = (np.abs(flow) < UNKNOWN_FLOW).all(-1, keepdims=True)
    u, v = np.moveaxis(np.where(known, flow, 0) / max_pixels, -1, 0)
    length = np.hypot(u, v)[..., None]
    place = (np.arctan2(-v, -u) / np.pi + 1) / 2 * (sum(WHEEL_STEPS) - 1)
    corners = np.cumsum((0, *WHEEL_STEPS))
    channels = [np.interp(place, corners, values) for values in np.transpose(WHEEL_CORNERS)]
    hue = np.stack(channels, axis=-1)
    colour = np.where(length <= 1, 1 - length * (1 - hue), OVERFLOW_BRIGHTNESS * hue)
    return np.floor(255 * colour * known).astype(np.uint8)
