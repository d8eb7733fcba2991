"""Which frames of a clip make pairs: those a set time apart."""

import numpy as np
from numpy.typing import NDArray

from midway.data.clip import Clip


def partners(
    frame_seconds: NDArray[np.float64],
    start_seconds: float | NDArray[np.float64],
    *,
    gap_seconds: tuple[float, float],
    fps: float,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and one past the last frame that follow each start by a gap of the given range.

    A gap counts when it is less than half a count of `fps` outside the range: frames at 1 Hz
    are partners at a gap of exactly 1 s, frames numbered at 29.97 Hz too.
    """
    slack = 0.499 / fps
    first = np.searchsorted(frame_seconds, start_seconds + gap_seconds[0] - slack, side="left")
    end = np.searchsorted(frame_seconds, start_seconds + gap_seconds[1] + slack, side="right")
    return np.asarray(first), np.asarray(end)


def start_frames(clip: Clip, gap_seconds: tuple[float, float]) -> NDArray[np.intp]:
    """Numbers of the frames of `clip` that have a partner within the range of gaps."""
    times = clip.frame_seconds
    first, end = partners(times, times, gap_seconds=gap_seconds, fps=clip.fps)
    return np.flatnonzero(end > first)


def has_pair(clip: Clip, gap_seconds: tuple[float, float]) -> bool:
    """Whether any frame of `clip` has a partner; the first one usually tells."""
    times = clip.frame_seconds
    first, end = partners(times, float(times[0]), gap_seconds=gap_seconds, fps=clip.fps)
    return bool(end > first) or start_frames(clip, gap_seconds).size > 0
