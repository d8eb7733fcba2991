"""Bounds on the tables of mp4 and mov files, checked before FFmpeg builds an index from them.

FFmpeg keeps 24 bytes for each frame in a table, and again for each edit that shows the frame. Its
time grows with the square of the number of edits. A file of a few kilobytes could take gigabytes or
hours.
"""

import os
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from midway.data.clip import BadClipError
from midway.errors import counted

MAX_FRAMES = 2**24
"""Largest number of frames of a video: six days at 30 fps."""
MAX_EDITS = 10_000
"""Largest number of edits of a track; recordings that were cut have a few dozen."""
_CONTAINERS = frozenset([b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl", b"moof", b"traf"])
_FRAME_COUNTS = {b"stsz": 8, b"stz2": 8, b"trun": 4}
"""Offset of the number of frames in the boxes that state it."""
_SOME_FRAMES = 2**20
"""Number of frames that may be repeated by edits in a file of any size."""
_EDIT_BYTES = 12
"""Size of the shortest edit."""


# Training opens a file many times, and a fragmented one has thousands of tables.
@lru_cache(maxsize=4096)
def check_tables(location: str, path: str, start: int, size: int, modified: int) -> None:
    """Check the numbers of edits and frames that an mp4 or mov file declares.

    Args:
        location: Location of the video, for the errors.
        path: Path of the file that contains it: itself, or a tar file.
        start: Place of its first byte.
        size: Its size in bytes.
        modified: Modification time of the file; an unchanged one is not checked again.

    Raises:
        BadClipError: A track declares more than `MAX_EDITS` edits; or more frames, counted once per
            edit, than the file has bytes or than `MAX_FRAMES`.
    """
    with Path(path).open("rb") as file:
        _check(location, file.fileno(), start, size)


def _check(location: str, file: int, first: int, size: int) -> None:
    is_sound, edits, frames = False, 1, 0
    for kind, start, end in _boxes(file, first, first + size):
        if kind in (b"trak", b"traf"):
            is_sound, edits, frames = False, 1, 0
        elif kind == b"hdlr":
            is_sound = os.pread(file, 4, start + 8) == b"soun"
        elif kind == b"elst":
            edits = max(1, (end - start) // _EDIT_BYTES)
        # Frames of sound are not kept one by one, and there may be more of them than bytes.
        elif kind in _FRAME_COUNTS and not is_sound:
            frames = int.from_bytes(os.pread(file, 4, start + _FRAME_COUNTS[kind]), "big")
        if edits > MAX_EDITS:
            raise BadClipError(location, f"has {edits:,} edits", "re-encode it or remove it")
        if frames > size or edits * frames > min(MAX_FRAMES, max(size, _SOME_FRAMES)):
            raise BadClipError(
                location,
                f"states {counted(frames, 'frame')} and {counted(edits, 'edit')} in {size:,} bytes",
                "copy it again, re-encode it or remove it",
            )


def _boxes(file: int, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each box, and the start and end of its content (ISO 14496-12, 4.2)."""
    while start + 8 <= end:
        header = os.pread(file, 16, start)
        if len(header) < 8:
            return
        length, kind = struct.unpack(">I4s", header[:8])
        content = start + 8
        if length == 1 and len(header) == 16:
            length, content = struct.unpack(">Q", header[8:])[0], start + 16
        stop = min(start + length, end) if length else end
        if stop < content:
            return
        yield kind, content, stop
        if kind in _CONTAINERS:
            yield from _boxes(file, content, stop)
        start = stop
