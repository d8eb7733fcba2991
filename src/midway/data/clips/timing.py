"""Frames of a clip that follow one another by a set time."""

import numpy as np
from numpy.typing import NDArray

from midway.data.clip import Clip

Gap = tuple[float, float]
"""Smallest and largest seconds between neighbouring frames of a sample."""


def partners(
    frame_seconds: NDArray[np.float64],
    start_seconds: float | NDArray[np.float64],
    *,
    gap_seconds: Gap,
    fps: float,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the first and one past the last frame that follow each start by a gap in the range.

    A gap counts when it is less than half a count of `fps` outside the range: frames at 1 Hz
    are partners at a gap of exactly 1 s, frames numbered at 29.97 Hz too.
    """
    slack = 0.499 / fps
    first = np.searchsorted(frame_seconds, start_seconds + gap_seconds[0] - slack, side="left")
    end = np.searchsorted(frame_seconds, start_seconds + gap_seconds[1] + slack, side="right")
    return np.asarray(first), np.asarray(end)


def followed_by(clip: Clip, num_more: int, gap_seconds: Gap) -> list[NDArray[np.bool_]]:
    """Return for each frame of a clip whether 0, 1, ... `num_more` frames can follow it.

    Returns:
        One array (frames,) for each number; each frame follows the one before it by a gap in the
        range.

    """
    times = clip.frame_seconds
    first, end = partners(times, times, gap_seconds=gap_seconds, fps=clip.fps)
    found = [np.ones(len(times), np.bool_)]
    for _ in range(num_more):
        # A frame is followed by k + 1 if a partner of it is followed by k.
        before = np.concatenate(([0], found[-1].cumsum()))
        found.append((end > first) & (before[end] > before[np.minimum(first, end)]))
    return found


def start_frames(clip: Clip, gap_seconds: Gap, num_frames: int = 2) -> NDArray[np.intp]:
    """Return the frames of `clip` that a sample of `num_frames` can start at."""
    return np.flatnonzero(followed_by(clip, num_frames - 1, gap_seconds)[-1])


def has_sample(clip: Clip, gap_seconds: Gap, num_frames: int = 2) -> bool:
    """Return whether any sample of `num_frames` starts in `clip`."""
    if num_frames == 2:  # the first frame usually answers, at a fraction of the cost
        times = clip.frame_seconds
        first, end = partners(times, float(times[0]), gap_seconds=gap_seconds, fps=clip.fps)
        if end > first:
            return True
    return start_frames(clip, gap_seconds, num_frames).size > 0
