"""Selection of frames at given time gaps within a clip."""

import numpy as np
from numpy.typing import NDArray

from midway.data.clip import Clip

Gap = tuple[float, float]
"""Smallest and largest seconds between neighbouring frames of a sample."""

EXACT = 0.01
"""Width of a gap, in frame periods, below which it counts as exact."""


def partners(
    frame_seconds: NDArray[np.float64],
    start_seconds: float | NDArray[np.float64],
    *,
    gap_seconds: Gap,
    fps: float,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the range of frames after each start that follow it by an allowed gap.

    A tolerance of half a frame period applies at both ends: just less for a range, just more for an
    exact gap. So a gap of exactly 1 s selects a frame at 1 Hz, and also in a sequence numbered at
    29.97 Hz; where two frames are equally far, such as at 12.5 Hz, both are in the range. The frame
    at the start itself is never in it, even if the tolerance exceeds the smallest gap; if the
    largest gap is 0, it is the only one.

    Args:
        frame_seconds: Times (frames,), increasing.
        start_seconds: One start time, or times (starts,).
        gap_seconds: Smallest and largest allowed gap.
        fps: Typical frame rate, which determines the tolerance.

    Returns:
        First index, and index after the last, each of the shape of `start_seconds`.
    """
    # A gap of half a frame period is as near to the start itself as to the next frame.
    is_exact = (gap_seconds[1] - gap_seconds[0]) * fps < EXACT and gap_seconds[0] * fps > 0.75
    slack = (0.501 if is_exact else 0.499) / fps
    first = np.searchsorted(frame_seconds, start_seconds + gap_seconds[0] - slack, side="left")
    if gap_seconds[1] == 0:
        same = np.searchsorted(frame_seconds, start_seconds, side="left")
        return np.asarray(same), np.asarray(same) + 1
    later = np.searchsorted(frame_seconds, start_seconds, side="right")
    end = np.searchsorted(frame_seconds, start_seconds + gap_seconds[1] + slack, side="right")
    return np.maximum(first, later), np.asarray(end)


def followed_by(clip: Clip, num_more: int, gap_seconds: Gap) -> list[NDArray[np.bool_]]:
    """Return for each frame whether a chain of 0, 1, ... `num_more` frames can follow it.

    Neighbouring frames of a chain are an allowed gap apart.

    Returns:
        `num_more` + 1 arrays (frames,), one for each length of the chain.
    """
    times = clip.frame_seconds
    first, end = partners(times, times, gap_seconds=gap_seconds, fps=clip.fps)
    found = [np.ones(len(times), np.bool_)]
    for _ in range(num_more):
        # k + 1 frames can follow a frame if k can follow one of its partners.
        before = np.concatenate(([0], found[-1].cumsum()))
        found.append((end > first) & (before[end] > before[np.minimum(first, end)]))
    return found


def start_frames(clip: Clip, gap_seconds: Gap, num_frames: int = 2) -> NDArray[np.intp]:
    """Return the frames of `clip` that a sample of `num_frames` can start at."""
    return np.flatnonzero(followed_by(clip, num_frames - 1, gap_seconds)[-1])


def has_sample(clip: Clip, gap_seconds: Gap, num_frames: int = 2) -> bool:
    """Return whether any sample of `num_frames` starts in `clip`."""
    if num_frames == 2:  # usually the first frame suffices, at a fraction of the cost
        times = clip.frame_seconds
        first, end = partners(times, float(times[0]), gap_seconds=gap_seconds, fps=clip.fps)
        if end > first:
            return True
    return start_frames(clip, gap_seconds, num_frames).size > 0


def follows(gap: float, gap_seconds: Gap, fps: float) -> bool:
    """Return whether the time between two frames that were read is an allowed gap.

    To the tolerance of `partners` it adds half a frame period, because the frames of a clip that
    counts as evenly timed may be off by a quarter of it.
    """
    slack = 1 / fps
    if gap_seconds[1] == 0:
        return gap == 0
    return gap > 0 and gap_seconds[0] - slack <= gap <= gap_seconds[1] + slack


def shortest_step(clip: Clip) -> float:
    """Return the shortest time between neighbouring frames of a clip; infinity for one frame."""
    steps = np.diff(clip.frame_seconds)
    return float(steps[steps > 0].min(initial=np.inf))
