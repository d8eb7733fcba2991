"""Flow as colours, by Middlebury's wheel."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

WHEEL_STEPS = (15, 6, 4, 11, 13, 6)
"""From red to yellow, green, cyan, blue, magenta and back, as fine as the eye tells them apart."""
WHEEL_CORNERS = ((1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 0, 0))
TOO_LONG = 0.75
"""Brightness of flow beyond the scale."""
UNKNOWN_FLOW = 1e9
"""Components beyond it mean that the flow is not known."""


def longest_pixels(flow: NDArray[Any]) -> float:
    """Length of the longest known motion of flow (..., 2), at least 1."""
    lengths = np.hypot(flow[..., 0], flow[..., 1])
    return max(1.0, float(lengths[lengths < UNKNOWN_FLOW].max(initial=0)))


def flow_to_rgb(flow: NDArray[Any], max_pixels: float) -> NDArray[np.uint8]:
    """Colours (..., 3) of flow (..., 2) by Middlebury's wheel (Baker et al., IJCV 2011).

    Right is red, down yellow, left cyan, up blue; no motion is white, motion of `max_pixels` has
    full colour, longer motion is darker, and unknown motion (not finite, or above 1e9) is black.
    """
    known = (np.abs(flow) < UNKNOWN_FLOW).all(-1, keepdims=True)
    u, v = np.moveaxis(np.where(known, flow, 0) / max_pixels, -1, 0)
    length = np.hypot(u, v)[..., None]
    place = (np.arctan2(-v, -u) / np.pi + 1) / 2 * (sum(WHEEL_STEPS) - 1)
    corners = np.cumsum((0, *WHEEL_STEPS))
    channels = [np.interp(place, corners, values) for values in np.transpose(WHEEL_CORNERS)]
    hue = np.stack(channels, axis=-1)
    colour = np.where(length <= 1, 1 - length * (1 - hue), TOO_LONG * hue)
    return np.floor(255 * colour * known).astype(np.uint8)
