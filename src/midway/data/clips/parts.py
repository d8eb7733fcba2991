"""Clips that are parts of videos: episodes of LeRobot datasets, and parts named in lists."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

from midway.data.clip import (
    ROUNDING_SECONDS,
    BadClipError,
    Clip,
    ClipReader,
    Frame,
    SignalSource,
)
from midway.data.clips.skipped import SkippedClip
from midway.data.video.file import VideoClip


@dataclass(frozen=True, slots=True)
class VideoPart:
    """Part of a video; times are relative to its first frame."""

    name: str
    video: VideoClip
    start_seconds: float
    end_seconds: float
    """End of the part, which excludes a frame that starts there."""
    signals: SignalSource | None = None

    @property
    def location(self) -> str:
        """Path or URL of the video."""
        return self.video.location

    @property
    def fps(self) -> float:
        """Frames per second of the video."""
        return self.video.fps

    @property
    def frame_seconds(self) -> NDArray[np.float64]:
        """Times (frames,) from 0; empty if the video has no frame in the part."""
        times = self._times()
        return times - times[:1]

    @property
    def first_seconds(self) -> float:
        """Time of the first frame of the part in the video."""
        return float(self._times()[0])

    def with_signals_of_video(self) -> Self:
        """Return a copy with the signals of the video, whose times are those of the video."""
        source = self.video.signals
        if source is None:
            return self
        return replace(self, signals=SignalSource(source.location, self.first_seconds))

    @contextmanager
    def open(self) -> Iterator[ClipReader]:
        """Open the video for reading the part."""
        with self.video.open() as reader:
            yield _PartReader(reader, self.first_seconds)

    def _times(self) -> NDArray[np.float64]:
        times, half = _video_seconds(self.video), 0.5 / self.fps
        limits = [self.start_seconds - half, self.end_seconds - half]
        first, end = np.searchsorted(times, limits, side="left")
        return times[first:end]


def divide_into_stretches(
    clips: Iterable[Clip],
    stretches: Mapping[str, Sequence[tuple[float, float]]],
    skipped: list[SkippedClip],
) -> list[Clip]:
    """Return clips with some videos replaced by parts of them.

    Args:
        clips: Clips of a root.
        stretches: Start and end in seconds of each part, by name of the video.
        skipped: List to which parts without a frame are added.
    """
    found: list[Clip] = []
    for clip in clips:
        if not isinstance(clip, VideoClip) or clip.name not in stretches:
            found.append(clip)
            continue
        for start, end in stretches[clip.name]:
            if start <= 0 and math.isinf(end):
                found.append(clip)
                continue
            part = VideoPart(f"{clip.name}#{start:.10g}-{end:.10g}", clip, start, end)
            if len(part.frame_seconds):
                found.append(part.with_signals_of_video())
            else:
                reason = f"has no frame from {start:g} to {end:g} s"
                error = BadClipError(clip.location, reason, "correct the list")
                skipped.append(SkippedClip(part.name, str(error)))
    return found


@lru_cache(maxsize=4)  # a file has thousands of short episodes
def _video_seconds(video: VideoClip) -> NDArray[np.float64]:
    return video.frame_seconds


@dataclass(frozen=True)
class _PartReader:
    reader: ClipReader
    first_seconds: float

    def frames_at(self, seconds: Sequence[float]) -> list[Frame]:
        asked = [self.first_seconds + max(each, 0.0) for each in seconds]
        frames = self.reader.frames_at(asked)
        return [Frame(frame.image, frame.seconds - self.first_seconds) for frame in frames]

    def keyframe_at(self, seconds: float) -> float | None:
        found = self.reader.keyframe_at(self.first_seconds + max(seconds, 0.0))
        if found is None or found < self.first_seconds - ROUNDING_SECONDS:
            return None
        return found - self.first_seconds
