"""Random access to the frames of a video by number, with few of them in memory."""

import math

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from midway.data.clip import ROUNDING_SECONDS, BadClipError
from midway.data.video.file import VideoFile

BLOCK = 32
"""Frames decoded per block; sequential access decodes each block once."""


class VideoFrames:
    """Sequence of the frames of an open video, decoded on access.

    Args:
        video: Video to read from; keep it open while frames are read.
        fps: Frames per second, sampled evenly from the first frame; 0 for all frames.

    Raises:
        BadClipError: The video is damaged, or has a single frame at this rate.

    """

    def __init__(self, video: VideoFile, *, fps: float = 0.0) -> None:
        self._video = video
        if fps:
            last = float(video.frame_seconds[-1])
            count = 1 + math.floor(last * fps + ROUNDING_SECONDS)
            # A margin, because the times in a file are rounded up or down.
            margin = 0.5 * float(np.diff(video.frame_seconds).min())
            times = [number / fps + margin for number in range(count)]
        else:
            times = video.frame_seconds.tolist()
        seconds = [frame.seconds for frame in video.frames_in_order(times)]
        # A video below this rate returns the same frame for several times; keep one of them.
        kept = [
            place for place in range(len(times)) if not place or seconds[place] > seconds[place - 1]
        ]
        if len(kept) < 2:
            raise BadClipError(
                video.location, "has a single frame at this rate", "give at least two frames"
            )
        self._times = [times[place] for place in kept]
        self.seconds = [seconds[place] for place in kept]
        """Time of each frame, in seconds after the first."""
        self.fps = (len(kept) - 1) / (self.seconds[-1] - self.seconds[0])
        """Average rate of the frames in this sequence."""
        self._block: tuple[int, list[Tensor]] = (-1, [])

    def __len__(self) -> int:
        return len(self._times)

    def __getitem__(self, number: int) -> UInt8[Tensor, "3 height width"]:
        """Return one RGB frame.

        Raises:
            IndexError: There is no frame with this number.

        """
        if not 0 <= number < len(self):
            raise IndexError(number)
        block, place = divmod(number, BLOCK)
        if self._block[0] != block:
            times = self._times[block * BLOCK : (block + 1) * BLOCK]
            images = [frame.image for frame in self._video.frames_at(times)]
            self._block = block, [torch.from_numpy(each).permute(2, 0, 1) for each in images]
        return self._block[1][place]
