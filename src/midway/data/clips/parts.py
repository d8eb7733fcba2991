"""Parts of videos as clips of their own: episodes of LeRobot datasets, stretches from lists."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from midway.data.clip import ClipReader, Frame, SignalSource
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
