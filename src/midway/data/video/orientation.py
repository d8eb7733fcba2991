"""Rotation and mirroring of decoded frames, from the display matrix of the file."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from midway.data.clip import BadClipError

_SEI, _PREFIX_SEI, _ORIENTATION = 6, 39, 47
_ROUNDED_SHARE = 1e-3
"""Share of the largest entry below which an entry of a display matrix is 0; 0.06 degrees."""


@dataclass(frozen=True)
class Orientation:
    """Transform of a stored frame to an upright one: first the transposition, then the flips."""

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


def has_orientation_message(packet: bytes, codec: str, setup: bytes) -> bool:
    """Return whether a packet has a display orientation SEI message (H.264 and H.265, annex D).

    The message may be in the first packet alone and then holds for all frames.

    Args:
        packet: First packet of the stream.
        codec: Name of the codec.
        setup: Decoder configuration, which states how packets are divided into units.
    """
    if codec not in ("h264", "hevc"):
        return False
    is_hevc = codec == "hevc"
    for unit in _units(packet, setup, is_hevc):
        kind = unit[0] >> 1 & 63 if is_hevc else unit[0] & 31
        if kind == (_PREFIX_SEI if is_hevc else _SEI) and _ORIENTATION in _messages(
            unit[2 if is_hevc else 1 :].replace(b"\0\0\3", b"\0\0")
        ):
            return True
        if kind < 32 if is_hevc else 1 <= kind <= 5:
            return False  # messages precede the slices
    return False


def _units(packet: bytes, setup: bytes, is_hevc: bool) -> Iterator[bytes]:
    """Yield the units of a packet, by start codes or by their lengths."""
    place = 21 if is_hevc else 4
    if len(setup) <= place or setup[0] != 1:
        yield from (unit for unit in packet.split(b"\0\0\1") if unit.strip(b"\0"))
        return
    size, start = (setup[place] & 3) + 1, 0
    while start + size < len(packet):
        end = start + size + int.from_bytes(packet[start : start + size], "big")
        if end > start + size:
            yield packet[start + size : end]
        start = end


def _messages(payload: bytes) -> Iterator[int]:
    """Yield the types of the messages in an SEI unit."""
    place = 0
    while place + 2 < len(payload):
        numbers = [0, 0]  # type and size, each as a run of bytes that ends below 255
        for which in range(2):
            while place < len(payload) and payload[place] == 255:
                numbers[which] += 255
                place += 1
            numbers[which] += payload[place] if place < len(payload) else 0
            place += 1
        yield numbers[0]
        place += numbers[1]
