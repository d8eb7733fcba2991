"""Timeline of a clip: the frames at which samples can start, and the draw of those that follow."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from midway.data.clip import Clip
from midway.data.clips.timing import Gap, followed_by, partners, shortest_step

Prefer = Callable[[int, NDArray[np.intp]], int]
"""Function that replaces a drawn frame by one of the allowed frames."""


@dataclass(frozen=True)
class Timeline:
    """Frame times of a clip, its start frames, and its frames with n followers at valid gaps."""

    seconds: NDArray[np.float64]
    starts: NDArray[np.intp]
    followed_by: list[NDArray[np.bool_]]
    """For n = 0, 1, ...: whether n frames can follow each frame."""
    margin_seconds: float
    """Time after the start of a frame within which no other frame starts."""
    fps: float
    gap_seconds: Gap

    def frames_from(
        self, start: int, rng: np.random.Generator, prefer: Prefer | None = None
    ) -> list[float]:
        """Draw one gap, and return the times of the frames that match it most closely.

        Args:
            start: First frame.
            rng: Generator of the gap.
            prefer: Choice of other frames among the allowed ones; None for none.
        """
        smallest, largest = self.gap_seconds
        times, seconds = self.seconds, [float(self.seconds[start])]
        num_more = len(self.followed_by) - 1
        if not num_more:
            return seconds
        # Near the end of a clip only short gaps fit.
        longest = (float(times[-1]) - seconds[0]) / num_more
        gap = rng.uniform(smallest, max(smallest, min(largest, longest)))
        for following in reversed(self.followed_by[:num_more]):
            first, end = partners(times, seconds[-1], gap_seconds=self.gap_seconds, fps=self.fps)
            allowed = int(first) + np.flatnonzero(following[int(first) : int(end)])
            distance = np.abs(times[allowed] - seconds[0] - len(seconds) * gap)
            place = int(allowed[np.argmin(distance)])
            if prefer:
                place = prefer(place, allowed)
            seconds.append(float(times[place]))
        return seconds


@lru_cache(maxsize=16)
def timeline_of(clip: Clip, gap_seconds: Gap, num_frames: int) -> Timeline:
    """Return the timeline of a clip, cached: hours of video have half a million frames."""
    found = followed_by(clip, num_frames - 1, gap_seconds)
    margin_seconds = min(0.5 / clip.fps, 0.5 * shortest_step(clip))
    starts = np.flatnonzero(found[-1])
    return Timeline(clip.frame_seconds, starts, found, margin_seconds, clip.fps, gap_seconds)
