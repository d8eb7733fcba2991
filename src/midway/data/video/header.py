"""Opening a video and what its header says; every way in which that fails, named.

Headers are written by strangers: whatever is read from one is checked before it is used.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from midway.data.clip import BadClipError
from midway.data.files import is_url, open_binary

VIDEO_SUFFIXES = frozenset({
    ".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg",
    ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp", ".ogv",
})  # fmt: skip

MAX_PIXELS = 2**26
"""Largest picture, as (height x width): a header of a few bytes must not claim gigabytes."""

MAX_FRAMES = 2**24
"""Longest video that a header may claim: six days at 30 fps."""

REMUX = "remux it with `ffmpeg -i IN -c copy OUT`"
COPY_AGAIN = "copy it again, re-encode it or remove it"

# Playlists and the like name other files and addresses, which no video has a reason to open.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv,ogg"
TIMEOUT_SECONDS = 60
_MP4_STARTS = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
# An mp4 says in its tables what FFmpeg else finds out by decoding: opening costs a twentieth.
_MP4_OPTIONS = {"skip_frame": "all", "probesize": "4096"}
# PyAV 19 accepts metadata in any encoding by itself, and no longer has the option.
_LENIENT_METADATA: dict[str, Any] = (
    {} if av.__version__.startswith("19.") else {"metadata_errors": "ignore"}
)


@dataclass(frozen=True)
class Timing:
    """What a header says."""

    duration_seconds: float
    """From the start of the first frame to that of the last."""
    fps: float
    """Frames a second, on average."""


@dataclass
class OpenStream:
    """The first video stream of an open file, decoded in this thread alone."""

    location: str
    container: InputContainer
    stream: VideoStream
    tick_seconds: Fraction
    size: int | None
    """Bytes of a local file when it was opened."""
    file: BinaryIO | None
    """What a URL is read through."""

    def close(self) -> None:
        """Let go of the file."""
        self.container.close()
        if self.file is not None:
            self.file.close()

    def packets(self) -> "Iterator[Packet[VideoStream]]":
        """Packets from here on; the last one is empty.

        Raises:
            BadClipError: A packet is encrypted, or was not there when the file was opened.
        """
        for packet in self.container.demux(self.stream):
            if packet.has_sidedata("encryption_info"):
                raise BadClipError(self.location, "is encrypted", "decrypt it or remove it")
            if self.size is not None and packet.pos is not None and packet.pos > self.size:
                raise BadClipError(
                    self.location, "grows while it is read", "wait until it is complete"
                )
            yield packet

    def timing(self) -> Timing:
        """What the header says.

        Raises:
            BadClipError: It says nothing, too much, or that there is a single frame.
        """
        stream = self.stream
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate
        if not rate or rate < 0:
            raise BadClipError(self.location, "states no frame rate", "re-encode it or remove it")
        fps = float(rate)
        length = _length_seconds(self.container, stream)
        if length is None or length <= 0:
            raise BadClipError(self.location, "states no length", REMUX)
        if length * fps > MAX_FRAMES:
            raise BadClipError(
                self.location,
                f"states a length of {length:.3g} s at {fps:.3g} frames a second",
                f"{REMUX} if that is wrong, or cut it",
            )
        if stream.frames == 1 or length * fps < 1.5:
            raise BadClipError(
                self.location, "has a single frame", "give at least two frames or remove it"
            )
        return Timing(length - 1 / fps, fps)


def read_timing(location: str) -> Timing:
    """What the header of a video says of its length and rate; decodes next to nothing.

    Raises:
        BadClipError: The file is no video, has a single frame, or lacks these.
    """
    with named_errors(location):
        opened = open_stream(location)
        try:
            # Encryption shows in the packets alone.
            next(opened.packets())
            return opened.timing()
        finally:
            opened.close()


def open_stream(location: str) -> OpenStream:
    """Open a video by path or URL, ready to read its first video stream.

    Raises:
        BadClipError: The file is no video, or one that is not read: encrypted, too large.
        OSError: It cannot be read at all; FFmpeg's errors are no subclass of one error either,
            so call this within `named_errors`.
    """
    size = None if is_url(location) else Path(location).stat().st_size
    with open_binary(location) as file:
        head = file.read(8)
    if not head:
        raise BadClipError(location, "is empty", "copy it again or remove it")
    with ExitStack() as opened:
        file = opened.enter_context(open_binary(location)) if is_url(location) else None
        container = opened.enter_context(
            av.open(
                # Else FFmpeg takes what stands before a colon in a path for a protocol.
                file or f"file:{location}",
                mode="r",
                options={
                    "max_pixels": str(MAX_PIXELS),
                    **(_MP4_OPTIONS if head[4:] in _MP4_STARTS else {}),
                },
                container_options={"format_whitelist": _FORMATS, "protocol_whitelist": "file"},
                timeout=TIMEOUT_SECONDS,
                **_LENIENT_METADATA,
            )
        )
        stream = _video_stream(location, container)
        tick = stream.time_base
        if not tick:
            raise BadClipError(location, "states no unit of time", REMUX)
        tick_seconds = Fraction(tick.numerator, tick.denominator)
        opened.pop_all()  # from here on the caller closes them
    return OpenStream(location, container, stream, tick_seconds, size, file)


@contextmanager
def named_errors(location: str) -> Iterator[None]:
    """Turn whatever reading a broken file raises into a BadClipError."""
    try:
        yield
    except av.error.ExitError as error:
        raise BadClipError(
            location, f"gave no data for {TIMEOUT_SECONDS} s", "check the disk or the network"
        ) from error
    except (av.error.FFmpegError, OSError) as error:
        raise BadClipError(
            location, f"cannot be read as video ({error.strerror or error})", COPY_AGAIN
        ) from error


def _video_stream(location: str, container: InputContainer) -> VideoStream:
    # The cover of a piece of music is stored as a video stream.
    covers = Disposition.attached_pic
    videos = [each for each in container.streams.video if not each.disposition & covers]
    if not videos:
        raise BadClipError(location, "has no video stream", "remove it")
    stream = videos[0]
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    # A stream of unknown kind has none, whatever the type says.
    context = getattr(stream, "codec_context", None)
    if context is None:
        raise BadClipError(location, "is of a kind that cannot be decoded", "re-encode it")
    if container.format.name == "avi" and context.name == "h264" and context.has_b_frames:
        raise BadClipError(location, "keeps no times for its frames", "re-encode it as mp4")
    # Where FFmpeg meets a size that it is told to refuse, none is left.
    if not 0 < context.width * context.height <= MAX_PIXELS:
        raise BadClipError(
            location,
            f"states no size of its pictures, or one of more than {MAX_PIXELS} pixels",
            "re-encode it smaller or remove it",
        )
    context.options = {"max_pixels": str(MAX_PIXELS)}
    # Many files are read at once, one a worker: threads within a file only cost.
    context.thread_count = 1
    return stream


def _length_seconds(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    # Matroska: the stream's own length; that of the container counts the sound too.
    stated = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if stated:
        hours, minutes, seconds = stated.groups()
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    return container.duration / av.time_base if container.duration else None
