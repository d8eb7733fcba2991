"""Checks that the readers and writers of all flow formats share."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from midway.errors import MidwayError

FloatFlow = NDArray[np.float32]

LIMIT_PIXELS = 1e9
"""Larger values of any format are unknown flow, as in the reader of Middlebury."""
AGAIN = "fetch it again"


def is_known(flow: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return a mask of known flow: flow (..., 2), mask (...)."""
    return np.asarray(np.isfinite(flow).all(-1))


def is_true(flow: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return a mask of vectors within the limit: flow (..., 2), mask (...)."""
    # NaN is larger than nothing, so it is not below the limit either.
    return np.asarray((np.abs(flow) <= LIMIT_PIXELS).all(-1))


def read_bytes(path: Path | str) -> bytes:
    """Read a file; pipes and devices are refused."""
    check_regular(path)
    return Path(path).read_bytes()


def check_regular(path: Path | str) -> None:
    """Refuse pipes and devices, which may never end; a missing file is left to its reader."""
    if Path(path).exists() and not Path(path).is_file():
        raise MidwayError(f"{path}: is not a regular file; give a file of flow")


def check_length(
    path: Path | str, data: bytes, header_bytes: int, width: int, height: int, *, channels: int
) -> None:
    """Refuse a file whose length contradicts the size in its header."""
    if width < 1 or height < 1:
        raise MidwayError(
            f"damaged flow file: {path} has a header of {width} x {height} pixels; {AGAIN}"
        )
    expected_bytes = header_bytes + 4 * channels * width * height
    if len(data) != expected_bytes:
        raise MidwayError(
            f"damaged flow file: {path} has {len(data)} bytes, {width} x {height} pixels need "
            f"{expected_bytes}; {AGAIN}"
        )


def check_shape(path: Path | str, flow: Any) -> None:
    """Refuse arrays without pixels, of another shape than (height, width, 2) or not of numbers."""
    shape = flow.shape
    if len(shape) != 3 or shape[2] != 2 or 0 in shape or flow.dtype.kind not in "fiu":
        raise MidwayError(
            f"no flow: {path} has shape {flow.shape} of {flow.dtype}; give (height, width, 2)"
        )


def checked(path: Path | str, flow: NDArray[np.floating]) -> NDArray[np.floating]:
    """Check shape and absence of NaN, and return the flow."""
    check_shape(path, flow)
    refuse_nan(path, flow)
    return flow


def refuse_nan(path: Path | str, flow: NDArray[np.floating]) -> None:
    """Refuse flow that has NaN."""
    if np.isnan(flow).any():
        raise MidwayError(
            f"NaN in flow: {path} at {np.isnan(flow).any(-1).sum()} pixels; make unknown flow "
            "infinite in an array, above 1e9 in a .flo file"
        )


def with_unknown(flow: NDArray[np.floating], unknown: NDArray[np.bool_]) -> FloatFlow:
    """Return float32 flow that is infinite where it is unknown."""
    return np.where(unknown[..., None], np.float32(np.inf), flow).astype(np.float32)
