"""A video file as a clip, of which only the header was read."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from midway.data.open_videos import open_video
from midway.data.signals import SUFFIX
from midway.data.video.file import VideoFile


@dataclass(frozen=True, slots=True)
class VideoClip:
    """A video whose header was read."""

    name: str
    location: str
    duration_seconds: float
    fps: float

    @property
    def frame_seconds(self) -> NDArray[np.float64]:
        """Times (frames,) of an even frame rate: the header holds no others."""
        return np.arange(round(self.duration_seconds * self.fps) + 1) / self.fps

    @property
    def signals_location(self) -> str:
        """Beside the video, with its name."""
        return self.location.rpartition(".")[0] + SUFFIX

    def open(self) -> AbstractContextManager[VideoFile]:
        """The file, which stays open in this process for a while after it was used."""
        return open_video(self.location)
