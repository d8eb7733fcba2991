"""Frames of a video file by time, turned the way a player shows them.

Times are seconds after the first frame, read from the container, so that a variable frame
rate, a late start and an edit list come out right.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Self

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from midway.data.clip import ROUNDING_SECONDS, BadClipError, Frame

VIDEO_SUFFIXES = frozenset({
    ".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg",
    ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp", ".ogv",
})  # fmt: skip

_MAX_BLIND_SECONDS = 1.0
_REMUX = "remux it with `ffmpeg -i IN -c copy OUT`"


@dataclass(frozen=True)
class Timing:
    """What a header says: `duration_seconds` from the first frame to the last, and `fps`."""

    duration_seconds: float
    fps: float


class VideoFile:
    """An open video; a context manager.

    `width` and `height` are those of the pictures it gives, rotation applied. Asking for
    increasing times is cheapest: nothing is decoded twice and nothing is sought needlessly.

    Args:
        location: The file.

    Raises:
        BadClipError: The file is no video, has a single frame or cannot be decoded.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        with _named_errors(location):
            self._open()
            first = self._next
            if first is None:
                raise BadClipError(location, "holds no picture", "copy it again or remove it")
            timing = _timing(location, self._container, self._stream)
            self._first_pts = _pts(location, first)
            self._orientation = _orientation(location, first)
        self.duration_seconds, self.fps = timing.duration_seconds, timing.fps
        swapped = self._orientation.transpose
        self.width, self.height = (
            (first.height, first.width) if swapped else (first.width, first.height)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()

    def frames_at(self, seconds: Sequence[float]) -> list[Frame]:
        """For each time the last frame that starts at or before it; the first one for a negative.

        Raises:
            BadClipError: The stream is damaged there, or ends before it.
        """
        frames = {each: self._frame_at(each) for each in sorted(set(seconds))}
        return [frames[each] for each in seconds]

    def _frame_at(self, seconds: float) -> Frame:
        seconds = max(seconds, 0.0)
        with _named_errors(self.location):
            if not self._can_continue_to(seconds):
                self._seek(seconds)
            while self._next is not None and self._seconds(self._next) <= (
                seconds + ROUNDING_SECONDS
            ):
                self._advance()
        if self._next is None:
            self._check_end(seconds)
        return self._picture()

    def _open(self) -> None:
        self._container, self._stream, self._tick_seconds = _open(self.location)
        # Many files are read at once, one a worker: threads within a file only cost.
        self._stream.codec_context.thread_count = 1
        self._start_decoding()

    def _start_decoding(self) -> None:
        self._decoder = self._container.decode(self._stream)
        self._frame: VideoFrame | None = None
        self._next: VideoFrame | None = next(self._decoder, None)

    def _advance(self) -> None:
        self._frame, self._next = self._next, next(self._decoder, None)

    def _seconds(self, frame: VideoFrame) -> float:
        return float((_pts(self.location, frame) - self._first_pts) * self._tick_seconds)

    def _pts_at(self, seconds: float) -> int:
        return self._first_pts + int((seconds + ROUNDING_SECONDS) / self._tick_seconds)

    def _can_continue_to(self, seconds: float) -> bool:
        """Whether decoding on is right, and no dearer than a seek as far as the index knows."""
        here = self._frame or self._next
        if here is None or self._seconds(here) > seconds + ROUNDING_SECONDS:
            return False
        if self._next is None:
            return True
        index = self._stream.index_entries
        if len(index) > 1:
            keyframe = index.search_timestamp(self._pts_at(seconds))
            return keyframe < 0 or index[keyframe].timestamp <= _pts(self.location, self._next)
        return seconds - self._seconds(self._next) <= _MAX_BLIND_SECONDS

    def _seek(self, seconds: float) -> None:
        # Some formats index decoding times or bytes, so a seek can land too late: then step back.
        back_seconds = 0.0
        while back_seconds <= seconds:
            self._container.seek(self._pts_at(seconds - back_seconds), stream=self._stream)
            self._start_decoding()
            if self._next is not None and self._seconds(self._next) <= seconds + ROUNDING_SECONDS:
                return
            back_seconds = 2 * back_seconds + 1
        self._container.close()
        self._open()

    def _check_end(self, seconds: float) -> None:
        last = self._frame
        assert last is not None  # the first frame starts at 0, so one was passed
        shown_seconds = float((last.duration or 0) * self._tick_seconds)
        end_seconds = self._seconds(last) + max(shown_seconds, 2 / self.fps)
        if seconds > end_seconds:
            raise BadClipError(
                self.location,
                f"holds no frame for {seconds:.2f} s, its last ends at {end_seconds:.2f} s",
                "copy it again, remux it or remove it",
            )

    def _picture(self) -> Frame:
        frame = self._frame
        assert frame is not None
        seconds = self._seconds(frame)
        if frame.is_corrupt:
            raise BadClipError(
                self.location,
                f"has a damaged frame at {seconds:.2f} s",
                "copy it again, re-encode it or remove it",
            )
        # Left to itself, the conversion starts threads that a process forked later waits for.
        image = frame.to_ndarray(format="rgb24", threads=1).astype(np.uint8, copy=False)
        return Frame(self._orientation.apply(image), seconds)


def read_timing(location: str) -> Timing:
    """What the header of a video says of its length and rate; decodes nothing.

    Raises:
        BadClipError: The file is no video, has a single frame, or lacks these.
    """
    with _named_errors(location):
        container, stream, _ = _open(location)
        with container:
            return _timing(location, container, stream)


@dataclass(frozen=True)
class _Orientation:
    """How stored pictures become upright: rows and columns swapped first, then flips."""

    transpose: bool
    flip_rows: bool
    flip_columns: bool

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.transpose:
            image = image.swapaxes(0, 1)
        if self.flip_rows:
            image = image[::-1]
        if self.flip_columns:
            image = image[:, ::-1]
        return np.ascontiguousarray(image)


def _orientation(location: str, frame: VideoFrame) -> _Orientation:
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return _Orientation(False, False, False)
    # Stored (x, y) is shown at (a x + c y, b x + d y), up to a shift.
    (a, b, _), (c, d, _), _ = np.frombuffer(bytes(side_data), np.int32).reshape(3, 3).tolist()
    if b == c == 0:
        return _Orientation(False, d < 0, a < 0)
    if a == d == 0:
        return _Orientation(True, b < 0, c < 0)
    raise BadClipError(location, "is rotated by no multiple of 90 degrees", "re-encode it upright")


def _open(location: str) -> tuple[InputContainer, VideoStream, Fraction]:
    """The container, its first video stream and the length of a tick of that stream."""
    container = av.open(location, metadata_errors="ignore")
    # The cover of a piece of music is stored as a video stream.
    covers = Disposition.attached_pic
    videos = [each for each in container.streams.video if not each.disposition & covers]
    if not videos:
        container.close()
        raise BadClipError(location, "has no video stream", "remove it")
    stream = videos[0]
    tick = stream.time_base
    assert tick is not None  # every stream that is read has one
    return container, stream, Fraction(tick.numerator, tick.denominator)


def _timing(location: str, container: InputContainer, stream: VideoStream) -> Timing:
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    if not rate:
        raise BadClipError(location, "states no frame rate", "re-encode it or remove it")
    fps = float(rate)
    if stream.duration and stream.time_base:
        length = float(stream.duration * stream.time_base)
    elif "DURATION" in stream.metadata:
        # Matroska: the stream's own length; that of the container counts the sound too.
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        length = 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    elif container.duration:
        length = container.duration / av.time_base
    else:
        raise BadClipError(location, "states no length", _REMUX)
    if stream.frames == 1 or length * fps < 1.5:
        raise BadClipError(location, "has a single frame", "give at least two frames or remove it")
    return Timing(length - 1 / fps, fps)


def _pts(location: str, frame: VideoFrame) -> int:
    if frame.pts is None:
        raise BadClipError(location, "has frames without times", _REMUX)
    return frame.pts


@contextmanager
def _named_errors(location: str) -> Iterator[None]:
    try:
        yield
    except av.error.FFmpegError as error:
        raise BadClipError(
            location,
            f"cannot be read as video ({error.strerror})",
            "copy it again, re-encode it or remove it",
        ) from error
