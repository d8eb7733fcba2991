"""Opening of video files, their headers, and the translation of FFmpeg's errors.

Headers are untrusted input, so every value is checked before it is used.
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
from midway.data.file_part import member_of
from midway.data.files import is_url, open_binary
from midway.data.video.mp4_tables import MAX_FRAMES as MAX_FRAMES
from midway.data.video.mp4_tables import check_tables

VIDEO_SUFFIXES = frozenset({
    ".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg",
    ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp", ".ogv",
})  # fmt: skip

MAX_PIXELS = 2**26
"""Largest frame (height x width), so that a header cannot make the decoder allocate gigabytes."""

REENCODE = "re-encode it or remove it"
SINGLE_FRAME = ("has a single frame", "give at least two frames or remove it")
COPY_AGAIN = "copy it again, re-encode it or remove it"

# Allowed formats; playlists are excluded, because they make FFmpeg open other files and addresses.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv,ogg"
TIMEOUT_SECONDS = 60
_MP4_STARTS = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
# The tables of an mp4 state what FFmpeg otherwise finds by decoding: opening is 20 times as fast.
_MP4_OPTIONS = {"skip_frame": "all", "probesize": "4096"}
NOTES = {
    "hdr": "HDR colours are not tone-mapped and come out pale",
    "interlaced": "interlaced frames are read as they are, and moving edges come out combed",
    "pixels": "pixels are not square, and frames come out squeezed",
    "streams": "of several video streams, the default or best one is read",
}
"""Warnings about videos that are read in a way that users may not expect, by key."""
_HDR_TRANSFERS = (16, 18)  # PQ and HLG (ITU-T H.273)
_INTERLACED = range(2, 6)  # AVFieldOrder
# The codecs of thumbnails; a video of another codec is preferred.
_STILL_CODECS = frozenset(["mjpeg", "png", "bmp", "tiff", "webp", "gif"])
# Their decoders report damage only if they are asked to; those of the other codecs always do.
_TOLERANT_CODECS = frozenset(["wmv1", "wmv2", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3"])
_STRICT = {"err_detect": "crccheck+bitstream+buffer"}
_COVERS = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
# A start code that is not the pack header of an MPEG program stream. The size of a first mp4 box
# looks alike, but a name of letters follows it.
_BARE = re.compile(rb"\x00\x00\x00\x01|\x00\x00\x01[^\xba]", re.DOTALL)
# Encoders with packed B-frames write such a text, in which p stands for "packed".
_PACKED = re.compile(rb"DivX\d+(?:Build|b)\d+p")
# PyAV 19 always accepts metadata in any encoding and no longer has this option.
_LENIENT_METADATA: dict[str, Any] = (
    {} if av.__version__.startswith("19.") else {"metadata_errors": "ignore"}
)


@dataclass(frozen=True)
class Header:
    """Values in the header of a video; they may be wrong."""

    duration_seconds: float | None
    """Time from the start of the first frame to the start of the last; None if not stated."""
    fps: float
    """Average frames per second."""
    stated_seconds: float | None
    """The same duration if the header states it for this stream alone, else None."""


@dataclass
class OpenStream:
    """The default or best video stream of an open file, decoded by one thread."""

    location: str
    container: InputContainer
    stream: VideoStream
    tick_seconds: Fraction
    size: int | None
    """Size of a local file in bytes when it was opened; None for a URL."""
    file: BinaryIO | None
    """File object of a URL; None for a local file."""

    def close(self) -> None:
        """Close the file."""
        self.container.close()
        if self.file is not None:
            self.file.close()

    def packets(self) -> "Iterator[Packet[VideoStream]]":
        """Yield packets from the current position; the last one is empty.

        Raises:
            BadClipError: A packet is encrypted, or was appended after the file was opened.
        """
        for packet in self.container.demux(self.stream):
            if packet.has_sidedata("encryption_info"):
                raise BadClipError(self.location, "is encrypted", "decrypt it or remove it")
            if self.size is not None and packet.pos is not None and packet.pos > self.size:
                raise BadClipError(
                    self.location, "grows while it is read", "wait until it is complete"
                )
            yield packet

    @property
    def is_mp4(self) -> bool:
        """True for files with the tables of an mp4 or mov."""
        return self.container.format.name.startswith("mov,")

    def check_unpacked(self, packet: "Packet[VideoStream]") -> None:
        """Check a first packet for the mark of packed B-frames, as old DivX encoders write it.

        Raises:
            BadClipError: Packets contain two frames, whose times are unknown.
        """
        context = self.stream.codec_context
        texts = (context.extradata or b"", bytes(packet)) if context.name == "mpeg4" else ()
        if any(_PACKED.search(text) for text in texts):
            raise BadClipError(
                self.location,
                "has packed B-frames, whose times cannot be read",
                "re-encode it, or run `ffmpeg -i IN -c copy -bsf:v mpeg4_unpack_bframes OUT.avi`",
            )

    def header(self) -> Header:
        """Return the duration and the frame rate in the header.

        Raises:
            BadClipError: The rate is missing or implausible, or there is a single frame.
        """
        stream = self.stream
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate
        if not rate or rate < 0:
            raise BadClipError(self.location, "has no frame rate in its header", REENCODE)
        fps = float(rate)
        length = _length_seconds(self.container, stream)
        if length is None or length <= 0:
            if stream.frames == 1:
                raise BadClipError(self.location, *SINGLE_FRAME)
            return Header(None, fps, None)
        if length * fps > MAX_FRAMES:
            raise BadClipError(
                self.location,
                f"states a duration of {length:.3g} s at {fps:.3g} frames per second",
                f"{REENCODE} if that is wrong, or split it",
            )
        if stream.frames == 1 or length * fps < 1.5:
            raise BadClipError(self.location, *SINGLE_FRAME)
        duration = length - 1 / fps
        return Header(duration, fps, self._own(duration))

    def notes(self) -> tuple[str, ...]:
        """Return the keys of the `NOTES` that apply to this video."""
        context, pixels = self.stream.codec_context, self.stream.sample_aspect_ratio
        videos = [each for each in self.container.streams.video if not each.disposition & _COVERS]
        found = {
            "hdr": context.color_trc in _HDR_TRANSFERS,
            "interlaced": context.field_order in _INTERLACED,
            "pixels": bool(pixels) and pixels != 1,
            "streams": len(videos) > 1,
        }
        return tuple(name for name, is_found in found.items() if is_found)

    def _own(self, duration: float) -> float | None:
        """Return a stated duration without the time before the first frame, if it is this stream's.

        That of a container includes the sound. Matroska may count from the start of the sound.
        """
        stream = self.stream
        if stream.duration or (len(self.container.streams) == 1 and not stream.start_time):
            return duration
        if "DURATION" in stream.metadata and stream.start_time is not None:
            return duration - max(0.0, float(stream.start_time * self.tick_seconds))
        return None


def open_stream(location: str) -> OpenStream:
    """Open the default or best video stream of a file or URL.

    Call this within `bad_clip_errors`: FFmpeg's errors do not share a base class with others.

    Raises:
        BadClipError: The file is not a video, is empty, or has frames that are too large.
        OSError: The file cannot be read.
    """
    member = member_of(location)
    path = location if member is None else member.archive
    status = None if is_url(path) else Path(path).stat()
    with ExitStack() as opened:
        file = opened.enter_context(open_binary(location))
        head = _checked_head(location, file)
        if status is not None:
            start, size = (0, status.st_size) if member is None else member[1:]
            if head[4:].isalnum():
                check_tables(location, path, start, size, status.st_mtime_ns)
            if member is None:
                file.close()
                file = None  # FFmpeg reads local files itself
        container = opened.enter_context(
            av.open(
                # Without the prefix, FFmpeg takes the part before a colon in a path for a protocol.
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
            raise BadClipError(location, "has no time base in its header", REENCODE)
        tick_seconds = Fraction(tick.numerator, tick.denominator)
        opened.pop_all()  # the caller closes them
    size = None if status is None or member is not None else status.st_size
    return OpenStream(location, container, stream, tick_seconds, size, file)


def _checked_head(location: str, file: BinaryIO) -> bytes:
    """Return the first bytes of a file, whose position stays at its start.

    Raises:
        BadClipError: The file is empty or a bare stream.
    """
    head = file.read(8)
    if not head:
        raise BadClipError(location, "is empty", "copy it again or remove it")
    if _BARE.match(head) and not head[4:].isalnum():
        raise BadClipError(
            location, "is a bare video stream without a container or timestamps", REENCODE
        )
    file.seek(0)
    return head


@contextmanager
def bad_clip_errors(location: str) -> Iterator[None]:
    """Convert FFmpeg's and the system's errors in the block into a `BadClipError`."""
    try:
        yield
    except av.error.ExitError as error:
        raise BadClipError(
            location, f"returned no data for {TIMEOUT_SECONDS} s", "check the disk or the network"
        ) from error
    except (av.error.FFmpegError, OSError) as error:
        raise BadClipError(
            location, f"cannot be read as video ({error.strerror or error})", COPY_AGAIN
        ) from error


def _video_stream(location: str, container: InputContainer) -> VideoStream:
    # Music files store their cover as a video stream.
    videos = [each for each in container.streams.video if not each.disposition & _COVERS]
    if not videos:
        raise BadClipError(location, "has no video stream", "remove it")
    stream = min(videos, key=_stream_rank)
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    # Streams of an unknown codec have no context, contrary to the type stub.
    context = getattr(stream, "codec_context", None)
    if context is None:
        raise BadClipError(location, "has an unknown codec", "re-encode it")
    if container.format.name == "avi" and context.name == "h264" and context.has_b_frames:
        raise BadClipError(location, "has no timestamps for its frames", "re-encode it as mp4")
    # If FFmpeg rejects the size because of `max_pixels`, it reports 0.
    if not 0 < context.width * context.height <= MAX_PIXELS:
        raise BadClipError(
            location,
            f"has no frame size in its header, or one of more than {MAX_PIXELS} pixels",
            "re-encode it smaller or remove it",
        )
    context.options = {
        "max_pixels": str(MAX_PIXELS),
        **(_STRICT if context.name in _TOLERANT_CODECS else {}),
    }
    # Every worker reads its own file, so threads within a file would only add overhead.
    context.thread_count = 1
    return stream


def _stream_rank(stream: VideoStream) -> tuple[bool, bool, bool, int]:
    """Return a sort key: moving pictures, then the default stream, else the largest frames.

    Of several default streams players show the first.
    """
    context = getattr(stream, "codec_context", None)
    if context is None:
        return True, True, True, 0
    is_still = stream.frames == 1 or context.name in _STILL_CODECS
    is_default = bool(stream.disposition & Disposition.default)
    return False, is_still, not is_default, 0 if is_default else -context.width * context.height


def _length_seconds(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    # Matroska states the duration of the stream here; that of the container includes the audio.
    stated = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if stated:
        hours, minutes, seconds = stated.groups()
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    return container.duration / av.time_base if container.duration else None
