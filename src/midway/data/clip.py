"""What every source of frames offers: a clip by name, and its frames by time."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from midway.errors import MidwayError

ROUNDING_SECONDS = 1e-6
"""Times nearer than this are the same: they were rounded on the way."""


class BadClipError(MidwayError):
    """A video, frame or sequence that cannot be used.

    Args:
        location: Path or URL of the file or folder.
        reason: What is wrong with it, as a verb phrase.
        remedy: What the user can do.
    """

    def __init__(self, location: str, reason: str, remedy: str) -> None:
        super().__init__(f"{location}: {reason}; {remedy}")
        self.location, self.reason, self.remedy = location, reason, remedy

    def __reduce__(self) -> tuple[type["BadClipError"], tuple[str, str, str]]:
        return BadClipError, (self.location, self.reason, self.remedy)


@dataclass(frozen=True)
class Frame:
    """One picture: RGB `image` (height, width, 3) and its `seconds` after the first frame."""

    image: NDArray[np.uint8]
    seconds: float


class ClipReader(Protocol):
    """What an open clip offers."""

    def frames_at(self, seconds: Sequence[float]) -> list[Frame]:
        """For each time the last frame that starts at or before it; the first one for a negative.

        Times may come in any order and repeat; asked for together they cost least.

        Raises:
            BadClipError: One of the frames is damaged or missing.
        """
        ...


class Clip(Protocol):
    """One scene that frames can be read from; cheap to hold and to pickle until it is opened."""

    @property
    def name(self) -> str:
        """Name of the clip, unique below its root."""
        ...

    @property
    def location(self) -> str:
        """Path or URL of the file, or of the folder or store that holds the frames."""
        ...

    @property
    def signals_location(self) -> str | None:
        """Path or URL of the archive of its signals, there or not; None if it can have none."""
        ...

    @property
    def fps(self) -> float:
        """Rate that frame times are multiples of, on average."""
        ...

    @property
    def frame_seconds(self) -> NDArray[np.float64]:
        """Times (frames,) at which a frame is expected, from 0 and increasing."""
        ...

    def open(self) -> AbstractContextManager[ClipReader]:
        """The clip ready for reading."""
        ...
