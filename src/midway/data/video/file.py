"""Video files: frames by time, a cache of open files, and the video as a `Clip`.

Frames are upright, as a player shows them. Times are seconds after the first frame and come from
the container, so variable frame rates, late starts and edit lists are handled correctly.
"""

import logging
import math
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from midway.data.clip import ROUNDING_SECONDS, BadClipError, Frame, SignalSource
from midway.data.file_part import member_of
from midway.data.files import is_url
from midway.data.signals import SUFFIX
from midway.data.video.colours import with_known_colours
from midway.data.video.decoder import FrameDecoder
from midway.data.video.frame_times import Timing, read_frame_seconds, unpack_times
from midway.data.video.header import NOTES, bad_clip_errors
from midway.data.video.orientation import Orientation

_log = logging.getLogger(__name__)


class VideoFile(AbstractContextManager["VideoFile"]):
    """An open video; a context manager.

    The frames of a call depend only on the file and the times of that call, not on earlier calls.

    Args:
        location: Path or URL.

    Raises:
        BadClipError: The file is not a video, has a single frame or cannot be decoded.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        with bad_clip_errors(location):
            self._decoder = FrameDecoder(location)
        self.fps = self._decoder.header.fps

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._decoder.close()

    @cached_property
    def duration_seconds(self) -> float:
        """Time from the first frame to the last, as the header states it or packets show it."""
        stated = self._decoder.header.duration_seconds
        return float(self.frame_seconds[-1]) if stated is None else stated

    @cached_property
    def frame_seconds(self) -> NDArray[np.float64]:
        """Times (frames,) of all frames; the first access reads all packets of the file."""
        return read_frame_seconds(self.location)

    def warn(self) -> None:
        """Log a warning for each way in which frames may differ from what a player shows."""
        for note in self._decoder.notes:
            _log.warning("%s: %s", self.location, NOTES[note])

    @property
    def width(self) -> int:
        """Width in pixels of the upright first frame; the first access decodes it."""
        return self._shape[1]

    @property
    def height(self) -> int:
        """Height in pixels of the upright first frame; the first access decodes it."""
        return self._shape[0]

    def frames_at(self, seconds: Sequence[float]) -> list[Frame]:
        """Return for each time the last frame that starts at or before it.

        Args:
            seconds: Times after the first frame, in any order; a negative time selects the first.

        Raises:
            BadClipError: The stream is damaged there, ends earlier or changes its frame size.
        """
        in_order = sorted(set(seconds))
        frames = dict(zip(in_order, self.frames_in_order(in_order), strict=True))
        return [frames[each] for each in seconds]

    def frames_in_order(self, seconds: Sequence[float]) -> Iterator[Frame]:
        """Yield the frames of `frames_at` one by one, so that they need not fit into memory.

        Do not read from this file by other means until the iterator is exhausted or closed.

        Args:
            seconds: Times after the first frame, in non-decreasing order.

        Raises:
            BadClipError: The stream is damaged there, ends earlier or changes its frame size.
        """
        shown, frame = None, None
        with bad_clip_errors(self.location):
            upright = self._stream_orientation
            for decoded in self._decoder.frames([self._pts_at(each) for each in seconds]):
                if frame is None or decoded is not shown:
                    before, shown, frame = frame, decoded, self._frame(decoded, upright)
                    if before is not None and before.image.shape != frame.image.shape:
                        raise BadClipError(
                            self.location,
                            f"changes its frame size between {before.seconds:.2f} and "
                            f"{frame.seconds:.2f} s",
                            "re-encode it to one size or remove it",
                        )
                yield frame

    def keyframe_at(self, seconds: float) -> float | None:
        """Return the time of the last keyframe at or before a time; None if there is none.

        Args:
            seconds: Time after the first frame.

        Raises:
            BadClipError: The file cannot be read there.
        """
        with bad_clip_errors(self.location):
            pts = self._decoder.keyframe_at(self._pts_at(seconds))
        return None if pts is None else self._decoder.seconds(pts)

    @cached_property
    def _stream_orientation(self) -> Orientation | None:
        """Orientation of all frames if messages in the stream state it, perhaps only once."""
        if not self._decoder.is_turned_by_message:
            return None
        first = next(self._decoder.frames([self._decoder.first_pts]))
        return Orientation.of(self.location, first)

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        return self.frames_at([0])[0].image.shape

    def _pts_at(self, seconds: float) -> int:
        ticks = (max(seconds, 0.0) + ROUNDING_SECONDS) / self._decoder.tick_seconds
        return self._decoder.first_pts + math.floor(ticks)

    def _frame(self, decoded: VideoFrame, upright: Orientation | None) -> Frame:
        seconds = self._decoder.seconds(self._decoder.pts_of(decoded))
        # By default the conversion starts threads, and a process forked later would wait for them.
        known = with_known_colours(decoded)
        image = known.to_ndarray(format="rgb24", threads=1).astype(np.uint8, copy=False)
        upright = upright or Orientation.of(self.location, decoded)
        return Frame(upright.apply(image), seconds)


MAX_IDLE = 4
"""Number of idle files kept open; each keeps its index and a few decoded frames in memory."""

_Key = tuple[str, tuple[int, int, int] | None]

_idle: OrderedDict[_Key, VideoFile] = OrderedDict()
# A forked process shares file offsets with its parent, so both would read from wrong positions.
os.register_at_fork(after_in_child=_idle.clear)


@contextmanager
def open_video(location: str) -> Iterator[VideoFile]:
    """Open a video, or reuse it from a cache of recently read files if it has not changed.

    After an error the file is closed rather than cached, as its decoder may be in any state.

    Args:
        location: Path or URL.

    Raises:
        BadClipError: The file is not a video, has a single frame or cannot be decoded.
    """
    key = location, _version(location)
    # A file in use is not in the cache, so two threads never share a decoder.
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
    """Return inode, modification time and size of a local file, to detect a replaced file."""
    member = member_of(location)
    path = location if member is None else member.archive
    if is_url(path):
        return None
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


@dataclass(frozen=True, slots=True)
class VideoClip:
    """A video of known frame times."""

    name: str
    location: str
    duration_seconds: float
    fps: float
    frame_times: bytes = b""
    """Times of the frames, see `pack_times`; empty if they are even."""

    @classmethod
    def of(cls, name: str, location: str, timing: Timing) -> Self:
        """Return the clip of a video with a known timing."""
        return cls(name, location, timing.duration_seconds, timing.fps, timing.frame_times)

    @property
    def frame_seconds(self) -> NDArray[np.float64]:
        """Times (frames,) in seconds.

        Raises:
            MidwayError: The times are damaged.
        """
        if not self.frame_times:
            return np.arange(round(self.duration_seconds * self.fps) + 1) / self.fps
        seconds = unpack_times(self.frame_times)
        return seconds[seconds <= self.duration_seconds + ROUNDING_SECONDS]

    @property
    def signals(self) -> SignalSource | None:
        """Place of the signals: beside the video, with its name; None in a tar file."""
        if member_of(self.location) is not None:
            return None
        return SignalSource(self.location.rpartition(".")[0] + SUFFIX)

    def open(self) -> AbstractContextManager[VideoFile]:
        """Open the file; it stays in the cache of this process for a while after its use."""
        return open_video(self.location)
