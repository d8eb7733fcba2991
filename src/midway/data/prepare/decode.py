"""Clips read once from start to end: small upright pictures at an even rate, as they come.

A frame store is made of these. Nothing is sought and no frame is held longer than it takes to
know whether it is wanted.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from midway.data.clip import ROUNDING_SECONDS, BadClipError, Frame
from midway.data.clips.frame_folder import FrameSequence, read_image
from midway.data.video.header import REMUX, named_errors, open_stream
from midway.data.video.orientation import Orientation

T = TypeVar("T")

_MISSING_SECONDS = 1.0
"""A video that ends so much earlier than its header says was cut off; headers round."""


@dataclass(frozen=True)
class VideoSource:
    """A video file of which nothing is known yet."""

    name: str
    location: str


ClipSource = VideoSource | FrameSequence


def frames_through(
    source: ClipSource, *, fps: float, short_side: int, threads: int = 1
) -> Iterator[Frame]:
    """The frames shown at 0, 1/fps, 2/fps, ... seconds, each once, in order of time.

    A frame keeps the time at which it starts. The last time is that of the last frame.

    Args:
        source: What to decode.
        fps: Frames a second; a source of fewer gives all it has.
        short_side: Pixels of the shorter side, if the source has more.
        threads: Of the decoder; they change nothing about the pictures.

    Raises:
        BadClipError: The source is damaged, ends early, has a single frame, or changes its size.
    """
    if isinstance(source, VideoSource):
        frames = _video_frames(source.location, fps, short_side, threads)
    else:
        frames = _sequence_frames(source, fps, short_side)
    size = None
    for frame in frames:
        if size not in (None, frame.image.shape):
            raise BadClipError(
                source.location,
                f"changes its frame size at {frame.seconds:.2f} s",
                "re-encode it to one size or remove it",
            )
        size = frame.image.shape
        yield frame


def shown_at_rate(
    frames: Iterable[tuple[float, T]], fps: float, *, location: str
) -> Iterator[tuple[float, T]]:
    """Of frames in order of time those shown at 0, 1/fps, 2/fps, ..., each once.

    Args:
        frames: Seconds after the first frame, and the frame.
        fps: Times a second.
        location: Where they come from, for the error.

    Raises:
        BadClipError: The times go back, or there is a single frame.
    """
    previous: tuple[float, T] | None = None
    tick, last = 0, 0.0
    for seconds, frame in frames:
        if seconds < last:
            raise BadClipError(
                location, f"has frames whose times go back at {last:.2f} s", "re-encode it"
            )
        if previous is not None and tick / fps < seconds - ROUNDING_SECONDS:
            yield previous
            tick = math.ceil((seconds - ROUNDING_SECONDS) * fps)
        previous, last = (seconds, frame), seconds
    if previous is None:
        raise BadClipError(location, "holds no picture", "copy it again or remove it")
    if last == 0:
        raise BadClipError(location, "has a single frame", "give at least two frames or remove it")
    if tick / fps <= last + ROUNDING_SECONDS:
        yield previous


def scaled_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height once the shorter side has at most `short_side` pixels, aspect kept."""
    scale = min(1.0, short_side / min(width, height))
    return round(width * scale), round(height * scale)


def _video_frames(location: str, fps: float, short_side: int, threads: int) -> Iterator[Frame]:
    with named_errors(location), closing(open_stream(location)) as opened:
        opened.stream.codec_context.thread_count = threads
        stated_seconds = opened.timing().duration_seconds
        opened.stream.codec_context.skip_frame = "DEFAULT"
        first: VideoFrame | None = None
        scale = _Scaler(short_side)
        last_seconds = 0.0

        def timed() -> Iterator[tuple[float, VideoFrame]]:
            nonlocal first, last_seconds
            for packet in opened.packets():
                for frame in packet.decode():
                    first = first or frame
                    if frame.pts is None or first.pts is None:
                        raise BadClipError(location, "has frames without times", REMUX)
                    last_seconds = float((frame.pts - first.pts) * opened.tick_seconds)
                    yield last_seconds, frame

        for seconds, frame in shown_at_rate(timed(), fps, location=location):
            if frame.is_corrupt:
                raise BadClipError(
                    location,
                    f"has a damaged frame at {seconds:.2f} s",
                    "copy it again, re-encode it or remove it",
                )
            assert first is not None
            yield Frame(Orientation.of(location, first).apply(scale(frame)), seconds)
        if last_seconds < stated_seconds - _MISSING_SECONDS:
            raise BadClipError(
                location,
                f"ends at {last_seconds:.2f} s of the {stated_seconds:.2f} s it should have",
                "copy it again, remux it or remove it",
            )


def _sequence_frames(sequence: FrameSequence, fps: float, short_side: int) -> Iterator[Frame]:
    scale = _Scaler(short_side)
    timed = zip(sequence.frame_seconds.tolist(), sequence.frames, strict=True)
    for seconds, location in shown_at_rate(timed, fps, location=sequence.location):
        image = VideoFrame.from_ndarray(read_image(location), format="rgb24")
        yield Frame(scale(image), seconds)


class _Scaler:
    """Makes RGB (height, width, 3) of a decoded frame, its shorter side `short_side` or less.

    Colours first, as in direct reading, then a bicubic antialiased resize: 55 dB from Pillow's on
    720p video at 480p, where a JPEG of quality 90 comes to 33 to 46. FFmpeg in one step halves the
    resolution of the colours.
    """

    def __init__(self, short_side: int) -> None:
        self._short_side = short_side
        self._colours, self._resize = VideoReformatter(), VideoReformatter()

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        width, height = scaled_size(frame.width, frame.height, self._short_side)
        # Left to itself, a conversion starts threads.
        full = self._colours.reformat(frame, format="rgb24", threads=1)
        small = self._resize.reformat(
            full, width, height, interpolation=Interpolation.BICUBIC, threads=1
        )
        return small.to_ndarray().astype(np.uint8, copy=False)
