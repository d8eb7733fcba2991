"""Frame times of videos, from indexes and packets; no frame is decoded to find them.

A header states a length and an average rate, but the length may include the sound or be missing,
and the rate may vary. Packets state the time of each frame. Evenly timed videos are described by
duration and rate alone, so that indexes of many videos stay small.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain, islice

import av.error
import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from midway.data.clip import BadClipError
from midway.data.video.decoder import FrameDecoder
from midway.data.video.header import (
    COPY_AGAIN,
    MAX_FRAMES,
    REENCODE,
    Header,
    OpenStream,
    bad_clip_errors,
    open_stream,
)
from midway.errors import MidwayError

EVEN_SHARE = 0.25
"""Largest deviation from a constant rate, in frame periods, of an evenly timed video.

Half a period after its expected start, a frame is then still shown.
"""
MISSING_SECONDS = 1.0
"""Difference from the duration in the header beyond which a video is truncated."""
_CHECKED_PACKETS = 60
"""Packets whose order is checked; encoders reorder frames from the first ones on."""
_ANNOUNCED_PACKETS = 1000
_MICRO = 1e6
_VP8_SHOWN = 0x10


@dataclass(frozen=True)
class Timing:
    """Duration, frame rate and frame times of a video."""

    duration_seconds: float
    """Time from the start of the first frame to the start of the last."""
    fps: float
    """Average frames per second; typical ones if the frames are timed unevenly."""
    frame_times: bytes = b""
    """Times of the frames, see `pack_times`; empty if the frames are timed evenly."""
    notes: tuple[str, ...] = ()
    """Keys in `NOTES`."""


def read_timing(location: str, announce: Callable[[], None] = lambda: None) -> Timing:
    """Return the timing of a video; no frame is decoded unless the order of packets is suspicious.

    The index of an mp4 shows whether its frames are timed evenly. Other files, and mp4 files timed
    unevenly, are read from start to end, packet by packet.

    Args:
        location: Path or URL.
        announce: Called regularly while packets are read.

    Raises:
        BadClipError: The file is not a video, has a single frame or frames without usable times,
            or ends before the end that its header states.
    """
    with _checked_packets(location) as (opened, header, packets):
        notes = opened.notes()
        if _is_evenly_indexed(opened, header) and header.duration_seconds is not None:
            return Timing(header.duration_seconds, header.fps, notes=notes)
        seconds = _packet_seconds(opened, header, packets, announce)
        return replace(_timing_of(seconds, header), notes=notes)


def read_frame_seconds(location: str) -> NDArray[np.float64]:
    """Return the times (frames,) of all frames in seconds after the first one, from the packets.

    Raises:
        BadClipError: As in `read_timing`.
    """
    with _checked_packets(location) as (opened, header, packets):
        return _packet_seconds(opened, header, packets, lambda: None)


def pack_times(seconds: NDArray[np.float64]) -> bytes:
    """Return frame times (frames,) as compressed differences in microseconds."""
    steps = np.diff(np.rint(seconds * _MICRO).astype("<i8"), prepend=0)
    return zlib.compress(steps.astype("<i8").tobytes(), 9)


def unpack_times(packed: bytes) -> NDArray[np.float64]:
    """Return the times (frames,) that `pack_times` packed.

    Raises:
        MidwayError: The bytes are damaged, or state too many frames.
    """
    try:
        unpacker = zlib.decompressobj()
        steps = np.frombuffer(unpacker.decompress(packed, 8 * MAX_FRAMES), "<i8")
        if not unpacker.eof or not len(steps):
            raise ValueError("incomplete")
    except (zlib.error, ValueError) as error:
        raise MidwayError(
            f"frame times in an index: are damaged ({error}); write the index again"
        ) from error
    return np.cumsum(steps) / _MICRO


def _timing_of(seconds: NDArray[np.float64], header: Header) -> Timing:
    last, count = float(seconds[-1]), len(seconds)
    if _is_even(seconds, header.fps):
        stated = header.duration_seconds
        # Edit lists may cut the duration within the last frame.
        if stated is not None and round(stated * header.fps) + 1 in (count - 1, count):
            return Timing(stated, header.fps)
        return Timing((count - 1) / header.fps, header.fps)
    if _is_even(seconds, (count - 1) / last):
        return Timing(last, (count - 1) / last)
    typical_fps = float(1 / np.median(np.diff(seconds)))
    return Timing(last, typical_fps, pack_times(seconds))


def _is_even(seconds: NDArray[np.float64], fps: float) -> bool:
    expected = np.arange(len(seconds)) / fps
    return bool(np.abs(seconds - expected).max() < EVEN_SHARE / fps)


def _is_evenly_indexed(opened: OpenStream, header: Header) -> bool:
    """Return whether the index of an mp4 is complete and agrees with its header.

    The index lists decoding times, but they are as even as the times at which frames are shown.
    """
    index = opened.stream.index_entries
    if not opened.is_mp4 or header.duration_seconds is None:
        return False
    if len(index) != opened.stream.frames or len(index) < 2:
        return False  # a fragmented file
    stated = round(header.duration_seconds * header.fps) + 1
    if len(index) != stated:
        return False
    # Edit lists discard frames.
    shown = [entry.timestamp for entry in index if not entry.is_discard]
    if len(shown) != stated:
        return False
    ticks = np.array(shown, np.float64)
    return _is_even((ticks - ticks[0]) * float(opened.tick_seconds), header.fps)


@contextmanager
def _checked_packets(
    location: str,
) -> "Iterator[tuple[OpenStream, Header, Iterator[Packet[VideoStream]]]]":
    """Open a video; yield its header, and its packets after a check of their order."""
    with bad_clip_errors(location), closing(open_stream(location)) as opened:
        header = opened.header()
        packets = opened.packets()
        yield opened, header, chain(_check_order(opened, packets), packets)


def _packet_seconds(
    opened: OpenStream,
    header: Header,
    packets: "Iterator[Packet[VideoStream]]",
    announce: Callable[[], None],
) -> NDArray[np.float64]:
    shown, starts_with_first = _shown_ticks(opened, header, packets, announce)
    if not len(shown):
        if header.duration_seconds is None:
            raise BadClipError(opened.location, "has frames without timestamps", REENCODE)
        # Program streams give the times of some frames only; the decoder infers the others.
        return np.arange(round(header.duration_seconds * header.fps) + 1) / header.fps
    if starts_with_first:
        first = int(shown[0])
    else:
        # The stream starts within a group of pictures, so only decoding shows which frame is first.
        with closing(FrameDecoder(opened.location)) as decoder:
            first = decoder.first_pts
    seconds = (shown[shown >= first] - first).astype(np.float64) * float(opened.tick_seconds)
    if len(seconds) < 2:
        raise BadClipError(opened.location, "has a single frame", "give at least two frames")
    stated = header.stated_seconds
    if stated is not None and seconds[-1] < stated - MISSING_SECONDS:
        raise BadClipError(
            opened.location,
            f"ends at {seconds[-1]:.2f} s, but its header states {stated:.2f} s",
            COPY_AGAIN,
        )
    return seconds


def _shown_ticks(
    opened: OpenStream,
    header: Header,
    packets: "Iterator[Packet[VideoStream]]",
    announce: Callable[[], None],
) -> tuple[NDArray[np.int64], bool]:
    """Return the times of all shown frames in ticks, and whether the first packet has the first.

    If a packet has no time, there are no times.
    """
    shown: list[int] = []
    starts_with_key, first, last_dts = False, None, None
    tolerance = 1 / (header.fps * float(opened.tick_seconds))
    is_vp8 = opened.stream.codec_context.name in ("vp8", "libvpx")
    for number, packet in enumerate(packets):
        if number % _ANNOUNCED_PACKETS == 0:
            announce()
        if not packet.size:
            continue
        pts, dts = packet.pts, packet.dts
        if pts is None:
            return np.empty(0, np.int64), False
        if dts is not None:
            if last_dts is not None and dts < last_dts - tolerance:
                seconds = float((last_dts - (first or 0)) * opened.tick_seconds)
                raise BadClipError(
                    opened.location, f"has decreasing frame times after {seconds:.2f} s", REENCODE
                )
            last_dts = dts
        if number == 0:
            starts_with_key, first = packet.is_keyframe and not packet.is_discard, pts
        # Reference frames of VP8 that are never shown have packets of their own.
        is_hidden = is_vp8 and not bytes(packet)[0] & _VP8_SHOWN
        if not packet.is_discard and not is_hidden:
            shown.append(pts)
        if len(shown) > MAX_FRAMES:
            raise BadClipError(opened.location, f"has more than {MAX_FRAMES} frames", "split it")
    ticks = np.unique(np.array(shown, np.int64))
    return ticks, bool(starts_with_key and len(ticks) and ticks[0] == first)


def _check_order(
    opened: OpenStream, packets: "Iterator[Packet[VideoStream]]"
) -> "list[Packet[VideoStream]]":
    """Check the times of the first packets of a codec that shows frames in another order.

    Copying a stream without timestamps gives packets the times of their decoding order. If the
    times of packets increase although the codec may reorder frames, a few are decoded.

    Returns:
        The packets that were read.

    Raises:
        BadClipError: Decoded frames do not have increasing times.
    """
    context = opened.stream.codec_context
    read: list[Packet[VideoStream]] = []
    last = None
    for packet in islice(packets, _CHECKED_PACKETS if context.has_b_frames else 1):
        if not read:
            opened.check_unpacked(packet)
        read.append(packet)
        if not packet.size:
            break
        if packet.pts is None or (last is not None and packet.pts < last):
            return read
        last = packet.pts
    if len(read) > 1:
        _check_decoded(opened, read)
    return read


def _check_decoded(opened: OpenStream, packets: "Sequence[Packet[VideoStream]]") -> None:
    opened.stream.codec_context.skip_frame = "DEFAULT"
    last = None
    for packet in packets:
        # A stream may start with frames that cannot be decoded.
        with suppress(av.error.FFmpegError):
            for pts in [frame.pts for frame in packet.decode() if frame.pts is not None]:
                if last is not None and pts < last:
                    raise BadClipError(
                        opened.location, "has wrong times, in the order of decoding", REENCODE
                    )
                last = pts
