"""Interface of clips: sources of frames that are read by time."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from midway.errors import MidwayError

ROUNDING_SECONDS = 1e-6
"""Tolerance below which two times are equal, to absorb rounding."""


class BadClipError(MidwayError):
    """Error for a video, frame or sequence that cannot be used.

    Args:
        location: Path or URL of the file or folder.
        reason: Verb phrase that says what is wrong with it.
        remedy: Action for the user, as an imperative.
    """

    def __init__(self, location: str, reason: str, remedy: str) -> None:
        super().__init__(f"{location}: {reason}; {remedy}")
        self.location, self.reason, self.remedy = location, reason, remedy

    def __reduce__(self) -> tuple[type["BadClipError"], tuple[str, str, str]]:
        return type(self), (self.location, self.reason, self.remedy)


@dataclass(frozen=True)
class Frame:
    """RGB `image` (height, width, 3), and its time in `seconds` after the first frame."""

    image: NDArray[np.uint8]
    seconds: float


@dataclass(frozen=True)
class SignalSource:
    """Place of the signals of a clip, see `midway.data.signals`."""

    location: str
    """Path or URL of the archive or table at which they are expected."""
    start_seconds: float = 0.0
    """Time of the first frame of the clip in the archive."""
    episode: int | None = None
    """Episode of a LeRobot table; None for an archive."""


class ClipReader(Protocol):
    """Interface of an open clip."""

    def frames_at(self, seconds: Sequence[float]) -> list[Frame]:
        """Return for each time the last frame that starts at or before it.

        One call for many times is faster than many calls.

        Args:
            seconds: Times after the first frame, in any order, also repeated; a negative time
                selects the first frame.

        Raises:
            BadClipError: A frame is damaged or missing.
        """
        ...

    def keyframe_at(self, seconds: float) -> float | None:
        """Return the time of the last keyframe at or before a time; None if there is none.

        A keyframe is decoded without other frames. Images are keyframes.

        Args:
            seconds: Time after the first frame.

        Raises:
            BadClipError: The file cannot be read there.
        """
        ...


def frames_shown_at(frame_seconds: NDArray[np.float64], seconds: Sequence[float]) -> list[int]:
    """Return for each time the last frame that starts at or before it, or the first frame.

    Args:
        frame_seconds: Times (frames,), increasing.
        seconds: Times in any order.
    """
    asked = np.asarray(seconds) + ROUNDING_SECONDS
    following = np.searchsorted(frame_seconds, asked, side="right")
    return np.maximum(following - 1, 0).tolist()


class Clip(Protocol):
    """Interface of a source of frames; cheap to keep and to pickle until it is opened."""

    @property
    def name(self) -> str:
        """Name of the clip, unique within its root."""
        ...

    @property
    def location(self) -> str:
        """Path or URL of the video, or of the folder or store of the frames."""
        ...

    @property
    def signals(self) -> SignalSource | None:
        """Place of its signals; None if it cannot have signals."""
        ...

    @property
    def fps(self) -> float:
        """Average frames per second; typical ones if frames are timed unevenly."""
        ...

    @property
    def frame_seconds(self) -> NDArray[np.float64]:
        """Expected times (frames,) of frames in seconds, from 0 and increasing."""
        ...

    def open(self) -> AbstractContextManager[ClipReader]:
        """Open the clip for reading."""
        ...
