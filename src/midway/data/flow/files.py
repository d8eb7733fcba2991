"""File formats of optical flow: u (right) and v (down) in pixels.

In memory, flow is float32 of shape (height, width, 2), and unknown flow is infinite in both
components, independent of the mark in the file. Flow is never NaN: unless a format marks unknown
flow by NaN, such a file is damaged.
"""

import io
import math
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from midway.atomic import write_atomically
from midway.data import arrays
from midway.data.flow.checks import (
    AGAIN,
    LIMIT_PIXELS,
    FloatFlow,
    check_length,
    check_regular,
    check_shape,
    checked,
    is_known,
    is_true,
    read_bytes,
    refuse_nan,
    with_unknown,
)
from midway.data.flow.png import read_kitti, write_kitti
from midway.data.images import MAX_PIXELS
from midway.errors import MidwayError

FLO_TAG = b"PIEH"
FLO_HEADER_BYTES = 12
FLO_UNKNOWN = np.float32(1666666752)
"""Mark of unknown flow in the files of Middlebury."""
_NUMBER = rb"-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_PFM_HEADER = re.compile(rb"(P[Ff])\s+(\d{1,9})\s+(\d{1,9})\s+(" + _NUMBER + rb")[ \t\r]*\n")


def read_flow(path: Path | str) -> FloatFlow:
    """Read flow in the format of the suffix; unknown flow is infinite.

    Returns:
        Flow of shape (height, width, 2).

    Raises:
        MidwayError: The suffix is unknown, or the file is damaged.
    """
    read, _ = _format(path)
    return read(path)


def write_flow(path: Path | str, flow: NDArray[np.floating]) -> None:
    """Write flow in the format of the suffix: `.flo`, `.pfm`, `.png`, `.flo5` or `.npy`.

    `.png` is the format of KITTI, `.npy` that of TartanAir, which has no mark of unknown flow.

    Raises:
        MidwayError: The suffix is unknown, or the format cannot represent the flow.
    """
    _, write = _format(path)
    write(path, flow)


def read_flo(path: Path | str) -> FloatFlow:
    """Read a Middlebury `.flo` file.

    Raises:
        MidwayError: Not a `.flo` file, a length that contradicts the header, or NaN.
    """
    data = read_bytes(path)
    if data[:4] != FLO_TAG:
        raise MidwayError(
            f"not a .flo file: {path} starts with {data[:4]!r}, not {FLO_TAG!r}; "
            "give a Middlebury .flo file or fetch this one again"
        )
    if len(data) < FLO_HEADER_BYTES:
        raise MidwayError(f"truncated .flo file: {path} ends in its header; {AGAIN}")
    width, height = (int(n) for n in np.frombuffer(data, "<i4", count=2, offset=4))
    check_length(path, data, FLO_HEADER_BYTES, width, height, channels=2)
    flow = np.frombuffer(data, "<f4", offset=FLO_HEADER_BYTES).reshape(height, width, 2)
    refuse_nan(path, flow)
    return with_unknown(flow, ~is_true(flow))


def write_flo(path: Path | str, flow: NDArray[np.floating]) -> None:
    """Write a Middlebury `.flo` file of float32.

    Raises:
        MidwayError: The flow has another shape, no pixels, or NaN.
    """
    flow = checked(path, flow)
    height, width = flow.shape[:2]
    size = np.array([width, height], "<i4").tobytes()
    marked = np.where(is_known(flow)[..., None], flow, FLO_UNKNOWN).astype("<f4")
    _write(path, FLO_TAG + size + marked.tobytes())


def read_pfm(path: Path | str) -> FloatFlow:
    """Read a three-channel `.pfm` file (FlyingThings3D), the third unused; NaN is unknown flow.

    Raises:
        MidwayError: Not such a file, or a length that contradicts the header.
    """
    data = read_bytes(path)
    header = _PFM_HEADER.match(data)
    if header is None or header[1] != b"PF":
        raise MidwayError(
            f"not flow in a .pfm file: {path} starts with {data[:12]!r}, not the header 'PF', "
            f"width, height, scale; give a three-channel .pfm or {AGAIN}"
        )
    width, height, scale = int(header[2]), int(header[3]), float(header[4])
    if not 0 < abs(scale) < np.inf:
        raise MidwayError(
            f"damaged .pfm file: {path} has scale {scale:g}, whose sign gives the byte order; "
            f"{AGAIN}"
        )
    check_length(path, data, header.end(), width, height, channels=3)
    kind = "<f4" if scale < 0 else ">f4"
    rows = np.frombuffer(data, kind, offset=header.end()).reshape(height, width, 3)
    flow = rows[::-1, :, :2]  # the bottom row comes first
    return with_unknown(flow, ~is_true(flow))


def write_pfm(path: Path | str, flow: NDArray[np.floating]) -> None:
    """Write a little-endian three-channel `.pfm` file, the third zero; unknown flow is NaN.

    Raises:
        MidwayError: The flow has another shape, no pixels, or NaN.
    """
    flow = checked(path, flow)
    height, width = flow.shape[:2]
    rows = np.zeros((height, width, 3), "<f4")
    rows[..., :2] = np.where(is_known(flow)[..., None], flow, np.nan)
    header = f"PF\n{width} {height}\n-1.0\n".encode()
    _write(path, header + rows[::-1].tobytes())


def read_flo5(path: Path | str) -> FloatFlow:
    """Read Spring's `.flo5` (HDF5), at twice the resolution of the images; NaN is unknown flow.

    Raises:
        MidwayError: h5py is not installed, or the file has no readable flow.
    """
    h5py = _h5py(path)
    check_regular(path)
    with Path(path).open("rb") as opened:
        try:
            with h5py.File(opened, "r") as file:
                stored = file["flow"]
                check_shape(path, stored)
                # The file may be far smaller than the array that it describes.
                if math.prod(stored.shape) > 2 * MAX_PIXELS:
                    raise ValueError(f"shape {stored.shape} is too large")
                flow = np.asarray(stored, np.float32)
        except MidwayError:
            raise
        except Exception as error:  # h5py raises many kinds for damaged files
            reason = " ".join(str(error).split())[:160]
            raise MidwayError(
                f"not a .flo5 file: {path} has no readable HDF5 dataset 'flow' ({reason}); {AGAIN}"
            ) from None
    return with_unknown(flow, ~is_true(flow))


def write_flo5(path: Path | str, flow: NDArray[np.floating]) -> None:
    """Write a compressed `.flo5` file; unknown flow is NaN.

    Raises:
        MidwayError: h5py is not installed, or the flow has another shape, no pixels, or NaN.
    """
    h5py = _h5py(path)
    flow = checked(path, flow)
    marked = np.where(is_known(flow)[..., None], flow, np.nan).astype(np.float32)
    content = BytesIO()
    with h5py.File(content, "w") as file:
        file.create_dataset("flow", data=marked, compression="gzip")
    _write(path, content.getvalue())


def read_npy(path: Path | str) -> FloatFlow:
    """Read TartanAir's `.npy`, in which the flow of every pixel is known.

    Raises:
        MidwayError: Not an array of shape (height, width, 2), or values that are not finite.
    """
    data = read_bytes(path)
    try:
        flow = arrays.read_npy(io.BytesIO(data), len(data))
    except (ValueError, EOFError) as error:
        raise MidwayError(f"not a whole .npy file: {path} ({error}); {AGAIN}") from None
    check_shape(path, flow)
    if not is_true(flow).all():
        raise MidwayError(
            f"damaged .npy file: {path} has flow that is not finite or above {LIMIT_PIXELS:g}; "
            f"{AGAIN}"
        )
    return flow.astype(np.float32)


def write_npy(path: Path | str, flow: NDArray[np.floating]) -> None:
    """Write TartanAir's `.npy` of float32.

    Raises:
        MidwayError: The flow has another shape or no pixels, or is unknown at some pixel.
    """
    flow = checked(path, flow)
    if not is_known(flow).all():
        raise MidwayError(
            f"unknown flow in a .npy file: {path} cannot mark it; write .flo or .pfm instead"
        )
    content = BytesIO()
    np.save(content, flow.astype(np.float32))
    _write(path, content.getvalue())


_FORMATS: dict[str, tuple[Callable[..., FloatFlow], Callable[..., None]]] = {
    ".flo": (read_flo, write_flo),
    ".pfm": (read_pfm, write_pfm),
    ".png": (read_kitti, write_kitti),
    ".flo5": (read_flo5, write_flo5),
    ".npy": (read_npy, write_npy),
}


def flow_suffixes() -> tuple[str, ...]:
    """Return the suffixes that `read_flow` and `write_flow` support."""
    return tuple(_FORMATS)


def _format(path: Path | str) -> tuple[Callable[..., FloatFlow], Callable[..., None]]:
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise MidwayError(
            f"no flow format: {path} ends in '{suffix}'; the suffixes are {', '.join(_FORMATS)}"
        )
    return _FORMATS[suffix]


def _write(path: Path | str, content: bytes) -> None:
    write_atomically(Path(path), lambda file: file.write(content))


def _h5py(path: Path | str) -> Any:
    try:
        import h5py  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MidwayError(
            f"no reader for {path}: .flo5 files need h5py; pip install 'midway-network[spring]'"
        ) from None
    return h5py
