"""Parts of files: the members of tar files, read in place.

The location of a member is ``shard.tar@START+SIZE/NAME``, so that it can be opened without reading
the headers of the tar file again.
"""

import os
import re
from io import RawIOBase
from typing import Any, BinaryIO, NamedTuple

_MEMBER = re.compile(
    r"(?P<archive>.*\.tar)@(?P<start>\d+)\+(?P<size>\d+)/.*", re.DOTALL | re.IGNORECASE
)


class Member(NamedTuple):
    """Place of a file in an archive."""

    archive: str
    """Path or URL."""
    start: int
    """Place of the first byte."""
    size: int
    """Number of bytes."""


def member_location(archive: str, start: int, size: int, name: str) -> str:
    """Return the location of a member.

    Examples:
        >>> member_location("shard.tar", 512, 99, "a.mp4")
        'shard.tar@512+99/a.mp4'

    """
    return f"{archive}@{start}+{size}/{name}"


def member_of(location: str) -> Member | None:
    """Return the place of a member; None for other locations.

    Examples:
        >>> member_of("shard.tar@512+99/a.mp4")
        Member(archive='shard.tar', start=512, size=99)

    """
    match = _MEMBER.fullmatch(location)
    return match and Member(match["archive"], int(match["start"]), int(match["size"]))


class FilePart(RawIOBase):
    """Part of an open file, read like a file of its own; closing it closes the file."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        super().__init__()
        self._file = file
        self._start, self._size = start, size
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position, and return it."""
        bases = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        self._position = max(0, bases[whence] + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Return up to `size` bytes, or all that follow."""
        left = max(0, self._size - self._position)
        count = left if size is None or size < 0 else min(size, left)
        self._file.seek(self._start + self._position)
        data = self._file.read(count)
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, and return the number of bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
