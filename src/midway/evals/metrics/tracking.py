"""TAP-Vid's measures of point tracks (Doersch et al., 2022, section 4)."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

THRESHOLDS = (1, 2, 4, 8, 16)
"""Pixels of a frame of 256 x 256 that a point may be off."""
SIDE = 256
STRIDE = 5
"""Frames between two queries of a point in strided mode."""

Mode: TypeAlias = Literal["first", "strided"]


def queries(
    occluded: Bool[np.ndarray, "points frames"], mode: Mode
) -> tuple[Int[np.ndarray, " queries"], Int[np.ndarray, " queries"]]:
    """Which points are asked for in which frames: numbers of points, and of frames.

    Args:
        occluded: Where points are not seen.
        mode: `first`: each point where it is first seen; `strided`: in every fifth frame that it is
            seen in. A point that is never seen there is left out.

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
    """Scores of one video.

    Args:
        points: As they were found, in pixels of frames of 256 x 256.
        occluded: Where they are said to be hidden.
        true_points: Likewise.
        true_occluded: Likewise.
        query_frames: Frames that the points are given in.
        mode: `first`: frames behind the query count; `strided`: all but the query.

    Returns:
        `occlusion_accuracy`; `position_accuracy_T` for each threshold, the share of visible points
        that are found within it, and their mean `position_accuracy`; `jaccard_T`, true positives
        over true positives, false positives and false negatives, and their mean
        `average_jaccard`. NaN where no point counts.

    """
    numbers = np.arange(true_points.shape[1])
    asked = query_frames[:, None]
    counts = numbers > asked if mode == "first" else numbers != asked
    visible, said = counts & ~true_occluded, counts & ~occluded
    squared = np.square(points - true_points).sum(-1)
    scores = {"occlusion_accuracy": _share((occluded == true_occluded)[counts])}
    for threshold in THRESHOLDS:
        right = visible & (squared < threshold**2)
        positives = (right & said).sum()
        # A visible point that is placed wrongly is missed, and wrongly claimed elsewhere.
        false_positives = (said & ~right).sum()
        union = visible.sum() + false_positives
        scores[f"position_accuracy_{threshold}"] = _share(right[visible])
        scores[f"jaccard_{threshold}"] = float(positives / union) if union else np.nan
    for total, part in (("position_accuracy",) * 2, ("average_jaccard", "jaccard")):
        scores[total] = float(np.mean([scores[f"{part}_{t}"] for t in THRESHOLDS]))
    return scores


def mean_scores(videos: Sequence[Mapping[str, float]]) -> dict[str, float | None]:
    """Mean over videos of each score, leaving NaN out; None where there is nothing else."""
    found: dict[str, float | None] = {}
    for name in dict.fromkeys(name for video in videos for name in video):
        values = np.array([video[name] for video in videos])
        real = values[~np.isnan(values)]
        found[name] = float(real.mean()) if len(real) else None
    return found


def _share(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else np.nan
