"""Frames of a video file by time, turned the way a player shows them.

Times are seconds after the first frame, read from the container, so that a variable frame
rate, a late start and an edit list come out right.
"""

import math
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from midway.data.clip import ROUNDING_SECONDS, BadClipError, Frame
from midway.data.files import is_url
from midway.data.signals import SUFFIX
from midway.data.video.decoder import PictureReader
from midway.data.video.header import COPY_AGAIN, named_errors
from midway.data.video.header import VIDEO_SUFFIXES as VIDEO_SUFFIXES
from midway.data.video.header import Timing as Timing
from midway.data.video.header import read_timing as read_timing
from midway.data.video.orientation import Orientation


class VideoFile(AbstractContextManager["VideoFile"]):
    """An open video; a context manager.

    What it gives depends on the file and on the times asked for in the same call, never on what
    was read before.

    Args:
        location: Path or URL.

    Raises:
        BadClipError: The file is no video, has a single frame or cannot be decoded.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        with named_errors(location):
            self._reader = PictureReader(location)
        timing = self._reader.timing
        self.duration_seconds, self.fps = timing.duration_seconds, timing.fps

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    @property
    def width(self) -> int:
        """Columns of its first frame, upright; decodes it."""
        return self._shape[1]

    @property
    def height(self) -> int:
        """Rows of its first frame, upright; decodes it."""
        return self._shape[0]

    def frames_at(self, seconds: Sequence[float]) -> list[Frame]:
        """For each time the last frame that starts at or before it; the first one for a negative.

        Raises:
            BadClipError: The stream is damaged there, ends before it or changes its size.
        """
        in_order = sorted(set(seconds))
        frames = dict(zip(in_order, self.frames_in_order(in_order), strict=True))
        return [frames[each] for each in seconds]

    def frames_in_order(self, seconds: Sequence[float]) -> Iterator[Frame]:
        """As `frames_at`, one frame after another: for more of them than memory holds.

        Nothing else may be read from this file until the iterator is done with.

        Args:
            seconds: Times that do not decrease.

        Raises:
            BadClipError: The stream is damaged there, ends before it or changes its size.
        """
        shown, frame = None, None
        with named_errors(self.location):
            for picture in self._reader.pictures([self._pts_at(each) for each in seconds]):
                if frame is None or picture is not shown:
                    before, shown, frame = frame, picture, self._frame(picture)
                    if before is not None and before.image.shape != frame.image.shape:
                        raise BadClipError(
                            self.location,
                            f"changes its frame size between {before.seconds:.2f} and "
                            f"{frame.seconds:.2f} s",
                            "re-encode it to one size or remove it",
                        )
                yield frame

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        return self.frames_at([0])[0].image.shape

    def _pts_at(self, seconds: float) -> int:
        ticks = (max(seconds, 0.0) + ROUNDING_SECONDS) / self._reader.tick_seconds
        return self._reader.first_pts + math.floor(ticks)

    def _frame(self, picture: VideoFrame) -> Frame:
        seconds = self._reader.seconds(self._reader.pts_of(picture))
        if picture.is_corrupt:
            raise BadClipError(self.location, f"has a damaged frame at {seconds:.2f} s", COPY_AGAIN)
        # Left to itself, the conversion starts threads that a process forked later waits for.
        image = picture.to_ndarray(format="rgb24", threads=1).astype(np.uint8, copy=False)
        return Frame(Orientation.of(self.location, picture).apply(image), seconds)


MAX_IDLE = 4
"""Files kept open that nobody reads from; each holds its index and a few decoded pictures."""

_Key = tuple[str, tuple[int, int, int] | None]

_idle: OrderedDict[_Key, VideoFile] = OrderedDict()
# A forked process shares the place in an open file with its parent: both would read rubbish.
os.register_at_fork(after_in_child=_idle.clear)


@contextmanager
def open_video(location: str) -> Iterator[VideoFile]:
    """A video, open already if it was read lately and has not changed since.

    One whose reading fails is closed: what broke it may have left its reader in any state.

    Args:
        location: Path or URL.

    Raises:
        BadClipError: The file is no video, has a single frame or cannot be decoded.
    """
    key = location, _version(location)
    # While it is in use it is not in the table: two threads never read from the same one.
    video = _idle.pop(key, None) or VideoFile(location)
    try:
        yield video
    except BaseException:
        video.close()
        raise
    twin = _idle.pop(key, None)
    if twin is not None:
        twin.close()
    _idle[key] = video
    while len(_idle) > MAX_IDLE:
        _idle.popitem(last=False)[1].close()


def _version(location: str) -> tuple[int, int, int] | None:
    """What tells a local file from another put in its place."""
    if is_url(location):
        return None
    try:
        status = Path(location).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


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
