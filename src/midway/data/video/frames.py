"""Frames of a video by number, at its own or a lower rate, without holding all of them."""

import math

import torch
from jaxtyping import UInt8
from torch import Tensor

from midway.data.clip import ROUNDING_SECONDS, BadClipError
from midway.data.video.file import VideoFile

BLOCK = 32
"""Frames held at a time: who goes through them forward or backward decodes few of them twice."""


class VideoFrames:
    """Frames of an open video; a sequence that reads them when they are asked for.

    Args:
        video: Stays open as long as frames are read.
        fps: Frames per second, evenly from the first one; 0 for all frames.

    Raises:
        BadClipError: The video is damaged, or has a single frame at this rate.

    """

    def __init__(self, video: VideoFile, *, fps: float = 0.0) -> None:
        self._video = video
        count = 1 + math.floor(video.duration_seconds * (fps or video.fps) + ROUNDING_SECONDS)
        # Half a frame late: times in a file are rounded either way.
        times = [number / (fps or video.fps) + 0.5 / video.fps for number in range(count)]
        seconds = [frame.seconds for frame in video.frames_in_order(times)]
        # Where frames are rarer than asked for, each counts once.
        kept = [place for place in range(count) if not place or seconds[place] > seconds[place - 1]]
        if len(kept) < 2:
            raise BadClipError(
                video.location, "has a single frame at this rate", "give at least two frames"
            )
        self._times = [times[place] for place in kept]
        self.seconds = [seconds[place] for place in kept]
        """When each frame is shown, after the first."""
        self.fps = (len(kept) - 1) / (self.seconds[-1] - self.seconds[0])
        """Of the frames given, on average."""
        self._block: tuple[int, list[Tensor]] = (-1, [])

    def __len__(self) -> int:
        return len(self._times)

    def __getitem__(self, number: int) -> UInt8[Tensor, "3 height width"]:
        """RGB bytes of a frame.

        Raises:
            IndexError: There is no frame of this number.

        """
        if not 0 <= number < len(self):
            raise IndexError(number)
        block, place = divmod(number, BLOCK)
        if self._block[0] != block:
            times = self._times[block * BLOCK : (block + 1) * BLOCK]
            images = [frame.image for frame in self._video.frames_at(times)]
            self._block = block, [torch.from_numpy(each).permute(2, 0, 1) for each in images]
        return self._block[1][place]
