"""Spread of damage: a frame is as damaged as the frames that it refers to."""

import math
from collections.abc import Callable

from av.video.frame import VideoFrame

from midway.data.clip import BadClipError


class DamageCheck:
    """Check of the frames that a decoder returns, in the order in which they are shown.

    FFmpeg marks a frame in which it found damage, but not the frames that refer to it: those that
    follow up to the next keyframe, and with B-frames also those before it.

    Args:
        error: Returns the error for a damaged frame at a time (pts).
    """

    def __init__(self, error: Callable[[int], BadClipError]) -> None:
        self._error = error
        self.restart(math.inf)

    def restart(self, start_pts: float) -> None:
        """Begin at a keyframe; frames before it may lack references, and are not requested."""
        self._start_pts = start_pts
        self._damaged_pts: int | None = None
        self._spoiled: dict[int, int] = {}
        self._has_used = False

    def see(self, frame: VideoFrame) -> None:
        """Note a decoded frame, requested or not.

        Raises:
            BadClipError: It is damaged, and a frame since the last keyframe has been used.
        """
        if frame.pts is None or frame.pts < self._start_pts:
            return
        if frame.is_corrupt:
            self._damaged_pts = frame.pts
            if self._has_used:
                raise self._error(frame.pts)
        elif frame.key_frame:
            self._damaged_pts, self._has_used = None, False
        if self._damaged_pts is not None:
            self._spoiled[frame.pts] = self._damaged_pts

    def use(self, frame: VideoFrame) -> None:
        """Note that a frame that was seen is used.

        Raises:
            BadClipError: It is damaged, or one since the keyframe before it is.
        """
        self._has_used = True
        if frame.pts in self._spoiled:
            raise self._error(self._spoiled[frame.pts])
