"""File formats of optical flow: u (right) and v (down) in pixels.

In memory, flow is float32 of shape (height, width, 2), and unknown flow is infinite in both
components, independent of the mark in the file. Flow is never NaN: unless a format marks unknown
flow by NaN, such a file is damaged.
"""

import re
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
from midway.errors import MidwayError

FloatFlow = NDArray[np.float32]

FLO_TAG = b"PIEH"
FLO_HEADER_BYTES = 12
FLO_LIMIT = 1e9
"""Larger values mark unknown flow, as in the reader of Middlebury."""
FLO_UNKNOWN = np.float32(1666666752)
"""Mark of unknown flow in the files of Middlebury."""
KITTI_ZERO = 32768
"""Value of zero flow in the PNG of KITTI."""
KITTI_STEPS = 64
"""Steps per pixel in the PNG of KITTI."""
_NUMBER = rb"-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_PFM_HEADER = re.compile(rb"(P[Ff])\s+(\d+)\s+(\d+)\s+(" + _NUMBER + rb")[ \t\r]*\n")
_AGAIN = "fetch it again"


def is_known(flow: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return a mask of known flow: flow (..., 2), mask (...)."""
    return np.asarray(np.isfinite(flow).all(-1))


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
    data = Path(path).read_bytes()
    if data[:4] != FLO_TAG:
        raise MidwayError(
            f"not a .flo file: {path} starts with {data[:4]!r}, not {FLO_TAG!r}; "
            "give a Middlebury .flo file or fetch this one again"
        )
    if len(data) < FLO_HEADER_BYTES:
        raise MidwayError(f"truncated .flo file: {path} ends in its header; {_AGAIN}")
    width, height = (int(n) for n in np.frombuffer(data, "<i4", count=2, offset=4))
    _check_length(path, data, FLO_HEADER_BYTES, width, height, channels=2)
    flow = np.frombuffer(data, "<f4", offset=FLO_HEADER_BYTES).reshape(height, width, 2)
    _refuse_nan(path, flow)
    return _with_unknown(flow, np.abs(flow).max(-1) > FLO_LIMIT)


def write_flo(path: Path | str, flow: NDArray[np.floating]) -> None:
    """Write a Middlebury `.flo` file of float32.

    Raises:
        MidwayError: The flow has another shape, no pixels, or NaN.
    """
    flow = _checked(path, flow)
    height, width = flow.shape[:2]
    size = np.array([width, height], "<i4").tobytes()
    marked = np.where(is_known(flow)[..., None], flow, FLO_UNKNOWN).astype("<f4")
    _write(path, FLO_TAG + size + marked.tobytes())


def read_pfm(path: Path | str) -> FloatFlow:
    """Read a three-channel `.pfm` file (FlyingThings3D), the third unused; NaN is unknown flow.

    Raises:
        MidwayError: Not such a file, or a length that contradicts the header.
    """
    data = Path(path).read_bytes()
    header = _PFM_HEADER.match(data)
    if header is None or header[1] != b"PF":
        raise MidwayError(
            f"not flow in a .pfm file: {path} starts with {data[:12]!r}, not the header 'PF', "
            f"width, height, scale; give a three-channel .pfm or {_AGAIN}"
        )
    width, height, scale = int(header[2]), int(header[3]), float(header[4])
    _check_length(path, data, header.end(), width, height, channels=3)
    kind = "<f4" if scale < 0 else ">f4"
    rows = np.frombuffer(data, kind, offset=header.end()).reshape(height, width, 3)
    flow = rows[::-1, :, :2]  # the bottom row comes first
    return _with_unknown(flow, ~is_known(flow))


def write_pfm(path: Path | str, flow: NDArray[np.floating]) -> None:
    """Write a little-endian three-channel `.pfm` file, the third zero; unknown flow is NaN.

    Raises:
        MidwayError: The flow has another shape, no pixels, or NaN.
    """
    flow = _checked(path, flow)
    height, width = flow.shape[:2]
    rows = np.zeros((height, width, 3), "<f4")
    rows[..., :2] = np.where(is_known(flow)[..., None], flow, np.nan)
    header = f"PF\n{width} {height}\n-1.0\n".encode()
    _write(path, header + rows[::-1].tobytes())


def read_kitti(path: Path | str) -> FloatFlow:
    """Read KITTI's 16-bit PNG.

    Flow is (value - 32768) / 64 of red and green, and known where blue is not 0.

    Raises:
        MidwayError: Not a 16-bit PNG of three channels.
    """
    try:
        with av.open(str(path), format="png_pipe") as container:
            frame = next(container.decode(video=0), None)
    except av.error.FileNotFoundError:
        raise
    except av.error.FFmpegError as error:
        raise MidwayError(
            f"flow cannot be read as PNG: {path} ({error.strerror}); {_AGAIN}"
        ) from None
    if frame is None or frame.format.name != "rgb48be":
        found = "no picture" if frame is None else f"pixels of format {frame.format.name}"
        raise MidwayError(
            f"not flow in a PNG file: {path} has {found}; give a 16-bit RGB PNG as in KITTI"
        )
    if frame.is_corrupt:
        raise MidwayError(f"damaged PNG file: {path}; {_AGAIN}")
    values = frame.to_ndarray().astype(np.float32)
    return _with_unknown((values[..., :2] - KITTI_ZERO) / KITTI_STEPS, values[..., 2] == 0)


def write_kitti(path: Path | str, flow: NDArray[np.floating]) -> None:
    """Write KITTI's 16-bit PNG, rounded to 1/64 pixel.

    Raises:
        MidwayError: The flow has another shape, no pixels, NaN, or motion beyond 512 pixels.
    """
    flow = _checked(path, flow)
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
    with Path(path).open("rb") as opened:
        try:
            with h5py.File(opened, "r") as file:
                flow = np.asarray(file["flow"], np.float32)
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise MidwayError(
                f"not a .flo5 file: {path} has no readable HDF5 dataset 'flow' ({error}); {_AGAIN}"
            ) from None
    _check_shape(path, flow)
    return _with_unknown(flow, ~is_known(flow))


def write_flo5(path: Path | str, flow: NDArray[np.floating]) -> None:
    """Write a compressed `.flo5` file; unknown flow is NaN.

    Raises:
        MidwayError: h5py is not installed, or the flow has another shape, no pixels, or NaN.
    """
    h5py = _h5py(path)
    flow = _checked(path, flow)
    marked = np.where(is_known(flow)[..., None], flow, np.nan).astype(np.float32)
    content = BytesIO()
    with h5py.File(content, "w") as file:
        file.create_dataset("flow", data=marked, compression="gzip")
    _write(path, content.getvalue())


def read_npy(path: Path | str) -> FloatFlow:
    """Read TartanAir's `.npy`, which is known everywhere.

    Raises:
        MidwayError: Not an array of shape (height, width, 2), or values that are not finite.
    """
    with Path(path).open("rb") as file:
        try:
            flow = np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise MidwayError(f"not a whole .npy file: {path} ({error}); {_AGAIN}") from None
    _check_shape(path, flow)
    if not is_known(flow).all():
        raise MidwayError(f"damaged .npy file: {path} has flow that is not finite; {_AGAIN}")
    return flow.astype(np.float32)


def write_npy(path: Path | str, flow: NDArray[np.floating]) -> None:
    """Write TartanAir's `.npy` of float32.

    Raises:
        MidwayError: The flow has another shape or no pixels, or is unknown somewhere.
    """
    flow = _checked(path, flow)
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


def _check_length(
    path: Path | str, data: bytes, header_bytes: int, width: int, height: int, *, channels: int
) -> None:
    if width < 1 or height < 1:
        raise MidwayError(
            f"damaged flow file: {path} has a header of {width} x {height} pixels; {_AGAIN}"
        )
    expected_bytes = header_bytes + 4 * channels * width * height
    if len(data) != expected_bytes:
        raise MidwayError(
            f"damaged flow file: {path} has {len(data)} bytes, {width} x {height} pixels need "
            f"{expected_bytes}; {_AGAIN}"
        )


def _write(path: Path | str, content: bytes) -> None:
    write_atomically(Path(path), lambda file: file.write(content))


def _check_shape(path: Path | str, flow: NDArray[Any]) -> None:
    if flow.ndim != 3 or flow.shape[2] != 2 or flow.size == 0 or flow.dtype.kind not in "fiu":
        raise MidwayError(
            f"no flow: {path} has shape {flow.shape} of {flow.dtype}; give (height, width, 2)"
        )


def _checked(path: Path | str, flow: NDArray[np.floating]) -> NDArray[np.floating]:
    """Check shape and absence of NaN, and return the flow."""
    _check_shape(path, flow)
    _refuse_nan(path, flow)
    return flow


def _refuse_nan(path: Path | str, flow: NDArray[np.floating]) -> None:
    if np.isnan(flow).any():
        raise MidwayError(
            f"NaN in flow: {path} at {np.isnan(flow).any(-1).sum()} pixels; make unknown flow "
            "infinite in an array, above 1e9 in a .flo file"
        )


def _with_unknown(flow: NDArray[np.floating], unknown: NDArray[np.bool_]) -> FloatFlow:
    return np.where(unknown[..., None], np.float32(np.inf), flow).astype(np.float32)


def _h5py(path: Path | str) -> Any:
    try:
        import h5py  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MidwayError(
            f"no reader for {path}: .flo5 files need h5py; pip install 'midway-network[spring]'"
        ) from None
    return h5py
