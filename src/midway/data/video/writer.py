"""Write a video frame by frame; what is not finished is not left behind."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

WRITTEN_VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv")
"""Containers that hold H.264."""
ENCODER_OPTIONS = {"crf": "18", "preset": "veryfast"}
"""The encoder keeps frames waiting to look ahead: with this preset 10 of them, by default 40.

So memory grows over the first 20 frames, by 46 MB at 960x540, and then no more. Without (tune
zerolatency) it would be 7 MB, and a file of a panning picture four times as large.
"""


@contextmanager
def writing_video(path: Path, fps: float) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """A function that adds a frame, RGB bytes (height, width, 3) of one size, to a new video.

    The video is at `path` once all is well; after an error there is none, nor a part of it. An odd
    row or column of pixels is repeated, as 4:2:0 holds even sizes only.

    Args:
        path: Its ending is one of `WRITTEN_VIDEO_SUFFIXES`.
        fps: Frames per second.

    """
    unfinished = path.with_name(f"{path.stem}.unfinished{path.suffix}")
    try:
        with av.open(str(unfinished), "w") as container:
            rate = Fraction(fps).limit_denominator(1001)
            stream = container.add_stream("libx264", rate=rate, options=ENCODER_OPTIONS)
            stream.pix_fmt = "yuv420p"

            def write(frame: NDArray[np.uint8]) -> None:
                height, width = frame.shape[:2]
                if not stream.codec_context.is_open:
                    stream.height, stream.width = height + height % 2, width + width % 2
                even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
                container.mux(stream.encode(VideoFrame.from_ndarray(even, "rgb24")))

            yield write
            container.mux(stream.encode())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
