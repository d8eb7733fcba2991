"""Optical flow in PNGs of 16 bits: KITTI's and HD1K's, and that of Virtual KITTI 2."""

import struct
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import av.error
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from midway.atomic import write_atomically
from midway.data.flow.checks import (
    AGAIN,
    FloatFlow,
    check_regular,
    checked,
    is_known,
    with_unknown,
)
from midway.data.images import MAX_PIXELS
from midway.errors import MidwayError

KITTI_ZERO = 32768
"""Value of zero flow in the PNG of KITTI."""
KITTI_STEPS = 64
"""Steps per pixel in the PNG of KITTI."""
LARGEST = 65535
"""Largest value of 16 bits."""


def read_kitti(path: Path | str) -> FloatFlow:
    """Read KITTI's 16-bit PNG.

    Flow is (value - 32768) / 64 of red and green, and known where blue is 1; else it is 0.

    Raises:
        MidwayError: Not a 16-bit PNG of three channels, larger than `MAX_PIXELS`, or another blue.
    """
    values = _values(path)
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
    write_atomically(Path(path), lambda file: file.write(b"".join(map(bytes, packets))))


def read_vkitti2(path: Path | str) -> FloatFlow:
    """Read the 16-bit PNG of Virtual KITTI 2.

    Red and green, from 0 to 65535, are flow from -1 to 1 in units of width - 1 and height - 1
    pixels; it is unknown where blue is 0.

    Raises:
        MidwayError: Not a 16-bit PNG of three channels, or larger than `MAX_PIXELS`.
    """
    values = _values(path)
    height, width = values.shape[:2]
    unit = np.array([width - 1, height - 1], np.float32)
    return with_unknown((2 / LARGEST * values[..., :2] - 1) * unit, values[..., 2] == 0)


def _values(path: Path | str) -> FloatFlow:
    """Return the three channels of a 16-bit PNG, shape (height, width, 3)."""
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
    return frame.to_ndarray().astype(np.float32)
