"""Region similarity J and contour accuracy F of masks (Perazzi et al., 2016, section 5)."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

TOLERANCE = 0.008
"""Largest distance between matching contour pixels, as a share of the image's diagonal."""

RECALL_ABOVE = 0.5
"""Score above which a frame counts for the recall."""

Mask = Bool[np.ndarray, "height width"]


def region_similarity(predicted: Mask, true: Mask) -> float:
    """Return J, the intersection over union; 1 if both masks are empty."""
    union = (predicted | true).sum()
    return float((predicted & true).sum() / union) if union else 1.0


def contour_accuracy(predicted: Mask, true: Mask) -> float:
    """Return F, the harmonic mean of precision and recall of contour pixels.

    Contour pixels match within `TOLERANCE`. F is 1 if neither mask has a contour, and 0 if only
    one has.
    """
    found, expected = contour(predicted), contour(true)
    if not found.any() or not expected.any():
        return float(found.any() == expected.any())
    radius = math.ceil(TOLERANCE * math.hypot(*true.shape))
    precision = (found & dilate(expected, radius)).sum() / found.sum()
    recall = (expected & dilate(found, radius)).sum() / expected.sum()
    total = precision + recall
    return float(2 * precision * recall / total) if total else 0.0


def recall_and_decay(name: str, scores: Sequence[float]) -> dict[str, float]:
    """Return recall and decay of the scores of an object's frames, named NAME_recall, NAME_decay.

    Recall is the share of scores above `RECALL_ABOVE`; decay is the mean of the first quarter of
    the frames minus that of the last. Quarters share their border frames (DAVIS's toolkit).
    """
    bounds = np.rint(np.linspace(1, len(scores), 5) + 1e-10).astype(int) - 1
    first, last = (np.mean(scores[bounds[n] : bounds[n + 1] + 1]) for n in (0, 3))
    recall = np.mean(np.asarray(scores) > RECALL_ABOVE)
    return {f"{name}_recall": float(recall), f"{name}_decay": float(first - last)}


def contour(mask: Mask) -> Mask:
    """Return the pixels that differ from their right, lower or lower-right neighbour."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])


def dilate(mask: Mask, radius: int) -> Mask:
    """Dilate a mask by a disc of `radius` pixels.

    The cost grows with the number of set pixels, so it is fast for contours.
    """
    steps = np.arange(2 * radius + 1) - radius
    rows, columns = np.nonzero(steps[:, None] ** 2 + steps**2 <= radius**2)
    y, x = np.nonzero(mask)
    height, width = mask.shape
    found = np.zeros((height + 2 * radius, width + 2 * radius), np.bool_)
    found[y[:, None] + rows, x[:, None] + columns] = True
    return found[radius : radius + height, radius : radius + width]
