"""Region similarity J and contour accuracy F of masks (Perazzi et al., 2016, section 5)."""

import math

import numpy as np
from jaxtyping import Bool

TOLERANCE = 0.008
"""How far contours may be apart, as a share of the image's diagonal."""

Mask = Bool[np.ndarray, "height width"]


def region_similarity(predicted: Mask, true: Mask) -> float:
    """J: intersection over union; 1 if both are empty."""
    union = (predicted | true).sum()
    return float((predicted & true).sum() / union) if union else 1.0


def contour_accuracy(predicted: Mask, true: Mask) -> float:
    """F: harmonic mean of precision and recall of contour pixels, matched within a tolerance.

    1 if neither has a contour, 0 if only one has.
    """
    found, wanted = contour(predicted), contour(true)
    if not found.any() or not wanted.any():
        return float(found.any() == wanted.any())
    radius = math.ceil(TOLERANCE * math.hypot(*true.shape))
    precision = (found & dilate(wanted, radius)).sum() / found.sum()
    recall = (wanted & dilate(found, radius)).sum() / wanted.sum()
    total = precision + recall
    return float(2 * precision * recall / total) if total else 0.0


def contour(mask: Mask) -> Mask:
    """Pixels that differ from their neighbour to the right, below, or right below."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])


def dilate(mask: Mask, radius: int) -> Mask:
    """All pixels within `radius` of one of the mask, which is fast for few pixels, as contours."""
    steps = np.arange(2 * radius + 1) - radius
    rows, columns = np.nonzero(steps[:, None] ** 2 + steps**2 <= radius**2)
    y, x = np.nonzero(mask)
    height, width = mask.shape
    found = np.zeros((height + 2 * radius, width + 2 * radius), np.bool_)
    found[y[:, None] + rows, x[:, None] + columns] = True
    return found[radius : radius + height, radius : radius + width]
