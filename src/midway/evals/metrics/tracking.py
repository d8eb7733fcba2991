"""TAP-Vid metrics of point tracks (Doersch et al., 2022, section 4)."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

THRESHOLDS = (1, 2, 4, 8, 16)
"""Distance thresholds in pixels of a 256 x 256 frame."""
SIDE = 256
"""Height and width of the frames that tracks are scored in."""
STRIDE = 5
"""Frames between two queries of a point in strided mode."""

Mode: TypeAlias = Literal["first", "strided"]


def queries(
    occluded: Bool[np.ndarray, "points frames"], mode: Mode
) -> tuple[Int[np.ndarray, " queries"], Int[np.ndarray, " queries"]]:
    """Return the query points: indices of points, and the frame of each query.

    Args:
        occluded: True where a point is occluded.
        mode: `first` queries each point in its first visible frame; `strided` in every fifth frame
            if it is visible there. Points without such a frame have no query.

    """
    visible = ~occluded
    if mode == "first":
        points = np.flatnonzero(visible.any(1))
        return points, visible[points].argmax(1)
    frames, points = np.nonzero(visible[:, ::STRIDE].T)
    return points, frames * STRIDE


def tap_vid_scores(
    *,
    points: Float[np.ndarray, "queries frames 2"],
    occluded: Bool[np.ndarray, "queries frames"],
    true_points: Float[np.ndarray, "queries frames 2"],
    true_occluded: Bool[np.ndarray, "queries frames"],
    query_frames: Int[np.ndarray, " queries"],
    mode: Mode,
) -> dict[str, float]:
    """Compute the scores of one video.

    Args:
        points: Predicted positions, in pixels of 256 x 256 frames.
        occluded: Predicted occlusion.
        true_points: Ground-truth positions, in the same pixels.
        true_occluded: Ground-truth occlusion.
        query_frames: Frame of each query.
        mode: `first` scores the frames after the query, `strided` all frames but the query's.

    Returns:
        `occlusion_accuracy`; `position_accuracy_T`, the share of visible points that are within T
        pixels of the truth, for each threshold, and the mean over thresholds `position_accuracy`;
        `jaccard_T`, true positives / (true positives + false positives + false negatives), and the
        mean `average_jaccard`. Values are from 0 to 1, or NaN if no point is scored.

    """
    numbers = np.arange(true_points.shape[1])
    query = query_frames[:, None]
    scored = numbers > query if mode == "first" else numbers != query  # (queries, frames)
    visible, predicted = scored & ~true_occluded, scored & ~occluded
    squared = np.square(points - true_points).sum(-1)
    scores = {"occlusion_accuracy": _share((occluded == true_occluded)[scored])}
    for threshold in THRESHOLDS:
        right = visible & (squared < threshold**2)
        positives = (right & predicted).sum()
        # A visible point at a wrong position is both a false negative and a false positive.
        false_positives = (predicted & ~right).sum()
        union = visible.sum() + false_positives
        scores[f"position_accuracy_{threshold}"] = _share(right[visible])
        scores[f"jaccard_{threshold}"] = float(positives / union) if union else np.nan
    for total, part in (("position_accuracy",) * 2, ("average_jaccard", "jaccard")):
        scores[total] = float(np.mean([scores[f"{part}_{t}"] for t in THRESHOLDS]))
    return scores


def mean_scores(videos: Sequence[Mapping[str, float]]) -> dict[str, float | None]:
    """Return the mean of each score over videos, without NaN; None if all are NaN."""
    found: dict[str, float | None] = {}
    for name in dict.fromkeys(name for video in videos for name in video):
        values = np.array([video[name] for video in videos])
        real = values[~np.isnan(values)]
        found[name] = float(real.mean()) if len(real) else None
    return found


def _share(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else np.nan
