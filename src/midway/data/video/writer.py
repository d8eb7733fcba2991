"""Writing of H.264 videos frame by frame; an unfinished file is removed."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import av.error
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from midway.errors import MidwayError

WRITTEN_VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv")
"""File suffixes of the containers that can be written."""
ENCODER_OPTIONS = {"crf": "18", "preset": "veryfast"}
"""Options of libx264: with this preset it buffers 10 frames for look-ahead, by default 40.

Memory therefore grows over the first 20 frames, by 46 MB at 960x540, and stays constant afterwards.
Without look-ahead (tune zerolatency) it would grow by 7 MB, but the file of a panning camera would
be four times as large.
"""


_TICKS = 90_000
"""Ticks per second of frames with times of their own."""


class Write(Protocol):
    """Function that appends a frame to a video."""

    def __call__(self, frame: NDArray[np.uint8], seconds: float | None = None) -> None:
        """Append a frame; `seconds` is the time at which it is shown, in increasing order.

        Without times, frames follow each other at the rate of the video.
        """


@contextmanager
def writing_video(
    path: Path,
    fps: float,
    *,
    options: Mapping[str, str] = ENCODER_OPTIONS,
    keyframe_every: int | None = None,
) -> Iterator[Write]:
    """Open a new video and return a function that appends a frame to it.

    Frames are RGB (height, width, 3), all of one size. If a side is odd, its last row or column is
    repeated, because 4:2:0 chroma subsampling requires even sizes. The video appears at `path`
    when the block ends without an error; otherwise nothing is left behind.

    Args:
        path: File to write, with one of `WRITTEN_VIDEO_SUFFIXES`.
        fps: Frames per second.
        options: Options of libx264.
        keyframe_every: Frames from one keyframe to the next; by default the encoder decides.

    Raises:
        MidwayError: The file cannot be created.
        OSError: The file cannot be written; it names `path`.

    """
    unfinished = path.with_name(f"{path.stem}.unfinished{path.suffix}")
    # FFmpeg opens the file with the first frame, and its error would not name it.
    _create(unfinished, path)
    try:
        # Without the prefix, FFmpeg takes the part before a colon in a path for a protocol.
        with _naming(path, unfinished), av.open(f"file:{unfinished}", "w") as container:
            rate = Fraction(fps).limit_denominator(1001)
            stream = container.add_stream("libx264", rate=rate, options=dict(options))
            stream.pix_fmt = "yuv420p"
            if keyframe_every:
                stream.gop_size = keyframe_every

            def write(frame: NDArray[np.uint8], seconds: float | None = None) -> None:
                height, width = frame.shape[:2]
                if not stream.codec_context.is_open:
                    stream.height, stream.width = height + height % 2, width + width % 2
                    if seconds is not None:
                        stream.codec_context.time_base = Fraction(1, _TICKS)
                even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
                # The conversion by several threads is not always the same (FFmpeg 8.1).
                coloured = VideoFrame.from_ndarray(even, "rgb24")
                picture = coloured.reformat(format="yuv420p", threads=1)
                if seconds is not None:
                    picture.pts, picture.time_base = round(seconds * _TICKS), Fraction(1, _TICKS)
                container.mux(stream.encode(picture))

            yield write
            container.mux(stream.encode())
            container.close()
            _flush(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _create(unfinished: Path, path: Path) -> None:
    try:
        unfinished.touch()
    except OSError as error:
        raise MidwayError(
            f"{path}: cannot be written ({error.strerror or error}); give a path in a folder that "
            "can be written to"
        ) from error


@contextmanager
def _naming(path: Path, unfinished: Path) -> Iterator[None]:
    """Name the finished file in errors of FFmpeg, which name the unfinished one or none."""
    try:
        yield
    except (OSError, av.error.FFmpegError) as error:
        if error.filename not in (None, "", str(unfinished), f"file:{unfinished}"):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _flush(path: Path) -> None:
    """Wait until a file is on disk; some full disks report the error only now."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
