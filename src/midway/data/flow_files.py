"""Optical flow on disk: u (right) and v (down) in pixels, from a frame to the next one."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from midway.errors import MidwayError

FLO_TAG = b"PIEH"
FLO_HEADER_BYTES = 12


def read_flo(path: Path | str) -> NDArray[np.float32]:
    """Flow of a Middlebury `.flo` file, shape (height, width, 2).

    Values above 1e9 mark unknown flow and are returned as they are.

    Raises:
        MidwayError: The file is no `.flo` file, or its length is not what its header says.
    """
    data = Path(path).read_bytes()
    if data[:4] != FLO_TAG:
        raise MidwayError(
            f"not a .flo file: {path} starts with {data[:4]!r}, not {FLO_TAG!r}; "
            "give a Middlebury .flo file or fetch this one again"
        )
    if len(data) < FLO_HEADER_BYTES:
        raise MidwayError(f"truncated .flo file: {path} ends in its header; fetch it again")
    width, height = (int(n) for n in np.frombuffer(data, "<i4", count=2, offset=4))
    if width < 1 or height < 1:
        raise MidwayError(
            f"damaged .flo file: {path} says it is {width} x {height} pixels; fetch it again"
        )
    expected_bytes = FLO_HEADER_BYTES + 8 * width * height
    if len(data) != expected_bytes:
        raise MidwayError(
            f"damaged .flo file: {path} has {len(data)} bytes, {width} x {height} pixels need "
            f"{expected_bytes}; fetch it again"
        )
    flow = np.frombuffer(data, "<f4", offset=FLO_HEADER_BYTES).reshape(height, width, 2)
    return flow.astype(np.float32)


def write_flo(path: Path | str, flow: NDArray[np.floating]) -> None:
    """Write `flow`, shape (height, width, 2), as a Middlebury `.flo` file of float32.

    Raises:
        MidwayError: `flow` has another shape or no pixels.
    """
    if flow.ndim != 3 or flow.shape[2] != 2 or flow.size == 0:
        raise MidwayError(
            f"no flow to write: {path} was given shape {flow.shape}; give (height, width, 2)"
        )
    height, width = flow.shape[:2]
    size = np.array([width, height], "<i4").tobytes()
    Path(path).write_bytes(FLO_TAG + size + flow.astype("<f4").tobytes())
