"""File formats of optical flow: u (right) and v (down) in pixels.

In memory, flow is float32 of shape (height, width, 2), and unknown flow is infinite in both
components, independent of the mark in the file. Flow is never NaN: unless a format marks unknown
flow by NaN, such a file is damaged.
"""

import io
import math
import re
import struct
from collections.abc import Callable
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import av
import av.error
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
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
from midway.data.images import MAX_PIXELS
from midway.errors import MidwayError

FLO_TAG = b"PIEH"
FLO_HEADER_BYTES = 12
FLO_UNKNOWN = np.float32(1666666752)
"""Mark of unknown flow in the files of Middlebury."""
KITTI_ZERO = 32768
"""Value of zero flow in the PNG of KITTI."""
KITTI_STEPS = 64
"""Steps per pixel in the PNG of KITTI."""
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


def read_kitti(path: Path | str) -> FloatFlow:
    """Read KITTI's 16-bit PNG.

    Flow is (value - 32768) / 64 of red and green, and known where blue is 1; else it is 0.

    Raises:
        MidwayError: Not a 16-bit PNG of three channels, larger than `MAX_PIXELS`, or another blue.
    """
    check_regular(path)
    with Path(path).open("rb") as file:
        header = file.read(24)
    width, height = struct.unpack(">II", header[16:].ljust(8, b"\0"))
    if header.startswith(b"\x89PNG") and width * height > MAX_PIXELS:
        raise MidwayError(
            f"flow of {width} x {height} pixels: {path} is above {MAX_PIXELS}; {AGAIN}"
        )
    try:
        with av.open(str(path), format="png_pipe") as container:
            frame = next(container.decode(video=0), None)
    except av.error.FileNotFoundError:
        raise
    except av.error.FFmpegError as error:
        raise MidwayError(
            f"flow cannot be read as PNG: {path} ({error.strerror}); {AGAIN}"
        ) from None
    if frame is None or frame.format.name != "rgb48be":
        found = "no picture" if frame is None else f"pixels of format {frame.format.name}"
        raise MidwayError(
            f"not flow in a PNG file: {path} has {found}; give a 16-bit RGB PNG as in KITTI"
        )
    if frame.is_corrupt:
        raise MidwayError(f"damaged PNG file: {path}; {AGAIN}")
    values = frame.to_ndarray().astype(np.float32)
    if values[..., 2].max() > 1:
        raise MidwayError(
            f"not flow of KITTI: blue of {path} has values up to {values[..., 2].max():.0f}, not 0 "
            "or 1; save u, v and validity as red, green and blue"
        )
    return with_unknown((values[..., :2] - KITTI_ZERO) / KITTI_STEPS, values[..., 2] == 0)


def write_kitti(path: Path | str, flow: NDArray[np.floating]) -> None:
    """Write KITTI's 16-bit PNG, rounded to 1/64 pixel.

    Raises:
        MidwayError: The flow has another shape, no pixels, NaN, or motion beyond 512 pixels.
    """
    flow = checked(path, flow)
    known = is_known(flow)
    steps = np.rint(np.where(known[..., None], flow, 0).astype(np.float64) * KITTI_STEPS)
    if steps.min() < -KITTI_ZERO or steps.max() >= KITTI_ZERO:
        raise MidwayError(
            f"flow too long for KITTI's PNG: motion in {path} is {np.abs(steps).max() / 64:.0f} "
            "pixels, the range is -512 to below 512; write a .flo file"
        )
    values = np.zeros((*known.shape, 3), np.uint16)
    values[..., :2] = (steps + KITTI_ZERO) * known[..., None]
    values[..., 2] = known
    encoder = cast("VideoCodecContext", av.CodecContext.create("png", "w"))
    encoder.height, encoder.width = known.shape
    encoder.pix_fmt, encoder.framerate = "rgb48be", Fraction(1)
    packets = [*encoder.encode(VideoFrame.from_ndarray(values, "rgb48be")), *encoder.encode(None)]
    _write(path, b"".join(map(bytes, packets)))


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
