"""Rotation and mirroring of decoded frames, from the display matrix of the file."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from midway.data.clip import BadClipError

_ROUNDED_SHARE = 1e-3
"""Share of the largest entry below which an entry of a display matrix is 0; 0.06 degrees."""


@dataclass(frozen=True)
class Orientation:
    """Transform from a stored to an upright frame: a transposition, followed by flips."""

    transpose: bool
    flip_rows: bool
    flip_columns: bool

    @classmethod
    def of(cls, location: str, frame: VideoFrame) -> Self:
        """Return the orientation in the display matrix of a decoded frame.

        Args:
            location: Path or URL of the video, for the error.
            frame: Decoded frame; without a display matrix it is upright.

        Raises:
            BadClipError: The rotation is not a multiple of 90 degrees.
        """
        # `frame.side_data` would create a reference cycle, so that megabytes wait for the garbage
        # collector.
        container = SideDataContainer(frame)  # pyright: ignore[reportCallIssue] - its stub has no __init__
        side_data = container.get("DISPLAYMATRIX")
        if side_data is None:
            return cls(False, False, False)
        # A stored pixel (x, y) is shown at (a x + c y, b x + d y), up to a translation.
        matrix = np.frombuffer(bytes(side_data), np.int32).reshape(3, 3)[:2, :2].astype(np.float64)
        # Some writers compute the matrix from an angle and round its entries to 1/65536.
        matrix[np.abs(matrix) < _ROUNDED_SHARE * np.abs(matrix).max()] = 0
        (a, b), (c, d) = matrix.tolist()
        if b == c == 0:
            return cls(False, d < 0, a < 0)
        if a == d == 0:
            return cls(True, b < 0, c < 0)
        raise BadClipError(
            location,
            "is rotated by an angle that is not a multiple of 90 degrees",
            "re-encode it upright",
        )

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the upright image (height, width, 3) of a stored one."""
        if self.transpose:
            image = image.swapaxes(0, 1)
        if self.flip_rows:
            image = image[::-1]
        if self.flip_columns:
            image = image[:, ::-1]
        return np.ascontiguousarray(image)
