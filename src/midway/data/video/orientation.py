"""How the pictures of a turned camera become upright."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from midway.data.clip import BadClipError


@dataclass(frozen=True)
class Orientation:
    """How a stored picture becomes upright: rows and columns swapped first, then flips."""

    transpose: bool
    flip_rows: bool
    flip_columns: bool

    @classmethod
    def of(cls, location: str, frame: VideoFrame) -> Self:
        """What the display matrix that came with a frame says.

        Raises:
            BadClipError: It turns by no multiple of 90 degrees.
        """
        # `frame.side_data` would make a cycle of the two, and megabytes wait for the collector.
        held = SideDataContainer(frame)  # pyright: ignore[reportCallIssue] - its stub has no __init__
        side_data = held.get("DISPLAYMATRIX")
        if side_data is None:
            return cls(False, False, False)
        # Stored (x, y) is shown at (a x + c y, b x + d y), up to a shift.
        (a, b, _), (c, d, _), _ = np.frombuffer(bytes(side_data), np.int32).reshape(3, 3).tolist()
        if b == c == 0:
            return cls(False, d < 0, a < 0)
        if a == d == 0:
            return cls(True, b < 0, c < 0)
        raise BadClipError(
            location, "is rotated by no multiple of 90 degrees", "re-encode it upright"
        )

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The upright picture (height, width, 3) of a stored one."""
        if self.transpose:
            image = image.swapaxes(0, 1)
        if self.flip_rows:
            image = image[::-1]
        if self.flip_columns:
            image = image[:, ::-1]
        return np.ascontiguousarray(image)
