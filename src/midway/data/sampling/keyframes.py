"""Keyframes as frames of samples: a video decodes them without the frames before them."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from midway.data.clip import BadClipError, Clip, ClipReader
from midway.data.sampling.timeline import Timeline

Starts = Literal["random", "every_frame", "keyframes"]
Targets = Literal["any", "keyframes"]
_MORE_DRAWS = 8
"""Further frames that are drawn if no sample can start at the keyframe before the first one."""


def frame_times(
    clip: Clip,
    reader: ClipReader,
    timeline: Timeline,
    chosen: NDArray[np.intp],
    rng: np.random.Generator,
    starts: Starts,
    targets: Targets,
) -> list[list[float]]:
    """Return the times of the frames of samples, in order of their first frames.

    Args:
        clip: Clip of the samples.
        reader: The clip, open for reading.
        timeline: Its timeline.
        chosen: First frames, each of which may be replaced by a keyframe.
        rng: Generator of gaps.
        starts: If "keyframes", samples start at keyframes.
        targets: If "keyframes", later frames are keyframes where the allowed gaps contain one.

    Raises:
        BadClipError: The file cannot be read, or has no keyframe that a sample can start at.
    """
    keyframes = Keyframes(clip, reader, timeline.seconds, timeline.margin_seconds)
    if starts == "keyframes":
        found = [keyframes.start(each, timeline.starts, rng) for each in chosen.tolist()]
        chosen = np.array(found)
    prefer = keyframes.near if targets == "keyframes" else None
    return [timeline.frames_from(start, rng, prefer) for start in np.sort(chosen).tolist()]


class Keyframes:
    """Keyframes of an open clip, as places in its frame times.

    Args:
        clip: Clip, for errors.
        reader: The clip, open for reading.
        frame_seconds: Times (frames,) of its frames.
        margin_seconds: Time after the start of a frame within which no other frame starts.
    """

    def __init__(
        self,
        clip: Clip,
        reader: ClipReader,
        frame_seconds: NDArray[np.float64],
        margin_seconds: float,
    ) -> None:
        self._clip, self._reader = clip, reader
        self._seconds, self._margin = frame_seconds, margin_seconds

    def before(self, place: int) -> int | None:
        """Return the last keyframe at or before a frame; None if there is none.

        Raises:
            BadClipError: The file cannot be read there.
        """
        found = self._reader.keyframe_at(float(self._seconds[place]) + self._margin)
        if found is None:
            return None
        # The times of evenly timed clips are rounded to their rate.
        after = int(np.searchsorted(self._seconds, found + self._margin, side="right"))
        return max(after - 1, 0)

    def start(self, drawn: int, starts: NDArray[np.intp], rng: np.random.Generator) -> int:
        """Return the keyframe from which a drawn frame is decoded.

        If no sample can start there, other frames are drawn; the last one is tried at the end.

        Args:
            drawn: Frame.
            starts: Frames that a sample can start at, increasing.
            rng: Generator of further frames.

        Raises:
            BadClipError: No keyframe was found that a sample can start at.
        """
        found = self._among(starts, drawn)
        if found is None:
            others = [*rng.choice(starts, _MORE_DRAWS).tolist(), int(starts[-1])]
            found = next(
                (each for o in others if (each := self._among(starts, o)) is not None), None
            )
        if found is None:
            raise BadClipError(
                self._clip.location,
                "has no keyframe that a sample can start at",
                "give data.starts random",
            )
        return found

    def near(self, wanted: int, allowed: NDArray[np.intp]) -> int:
        """Return the last allowed keyframe up to a frame, or else the last allowed keyframe.

        Args:
            wanted: Frame, which is returned if no allowed one is a keyframe.
            allowed: Frames, increasing.

        Raises:
            BadClipError: The file cannot be read there.
        """
        for place in (wanted, int(allowed[-1])):
            found = self._among(allowed, place)
            if found is not None:
                return found
        return wanted

    def _among(self, allowed: NDArray[np.intp], place: int) -> int | None:
        """Return the keyframe before a frame if it is an allowed one."""
        found = self.before(place)
        if found is None:
            return None
        nearest = min(int(np.searchsorted(allowed, found)), len(allowed) - 1)
        return found if allowed[nearest] == found else None
