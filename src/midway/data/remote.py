"""Files behind URLs: temporary failures are retried, and every error is one line.

The file systems of fsspec raise errors of their own libraries (aiohttp, httpx, botocore), many of
which are not `OSError`.
"""

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from io import RawIOBase
from typing import Any, TypeVar

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from midway.data.clip import BadClipError
from midway.data.remote_blocks import BLOCK_BYTES, RemoteBlocks
from midway.errors import MidwayError, one_line

T = TypeVar("T")

RETRY_SECONDS = (0.5, 2.0, 8.0)
"""Pauses before the second, third and fourth attempt."""
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""Errors that another attempt would repeat."""
_TAGS = (
    *("ETag", "etag", "Last-Modified", "LastModified", "last_modified", "mtime", "updated"),
    *("created", "blob_id"),
)
"""Attributes of a file that change with its content, by file system."""
_MAX_IDLE = 4
"""Number of closed files whose blocks are kept for another opening."""

_Key = tuple[str, Hashable]

_idle: OrderedDict[_Key, Any] = OrderedDict()
# A forked process would share connections with its parent.
os.register_at_fork(after_in_child=_idle.clear)


class UnavailableError(BadClipError):
    """A file could not be read for a reason that may be temporary, such as a lost connection."""


def file_system(url: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a URL, and the path within it.

    Raises:
        MidwayError: The scheme is not supported by this installation, or the server does not
            answer.
    """
    try:
        return url_to_fs(url)
    except Exception as error:  # each file system has its own errors
        raise MidwayError(f"{url}: cannot be opened ({one_line(error)}); check the URL") from error


def _opened(url: str) -> tuple[_Key | None, Any]:
    """Open a file, or take it from the idle ones if it has not changed since.

    Returns:
        Key in `_idle`, None if changes could not be noticed; and the file.
    """
    files, path = file_system(url)
    info = files.info(path)
    if not info.get("partial", True):
        return None, files.open(path, "rb")  # the server sends whole files only
    tags = tuple(str(info.get(name, "")) for name in _TAGS)
    key = (url, (info.get("size"), *tags)) if any(tags) else None
    # A file in use is not in the cache, so two readers never share one.
    idle = _idle.pop(key, None) if key else None
    if idle is not None:
        return key, idle
    # With the size at hand, file systems do not ask for it again.
    options = {} if info.get("size") is None else {"size": info["size"]}
    return key, files.open(
        path, "rb", block_size=BLOCK_BYTES, cache_type=RemoteBlocks.name, **options
    )


class RemoteFile(RawIOBase):
    """A file behind a URL, opened for reading.

    A file that is opened again is not fetched again, as its last blocks are kept.

    Args:
        url: URL of any file system that fsspec supports.

    Raises:
        OSError: The file does not exist, or may not be read.
        UnavailableError: The server does not answer.
        MidwayError: The scheme of the URL is not supported by this installation.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._position = 0
        self._key: _Key | None = None
        self._file: Any = None
        self._attempt(lambda file: None)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True; on a server without ranges a seek raises an error."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position, and return it.

        Raises:
            BadClipError: The server cannot send parts of a file.
            UnavailableError: The server does not answer.
        """
        if whence == os.SEEK_END:
            self._position = self._attempt(lambda file: file.seek(offset, os.SEEK_END))
        else:
            self._position = offset + (self._position if whence == os.SEEK_CUR else 0)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Return up to `size` bytes, or all that follow.

        Raises:
            BadClipError: The server cannot send parts of a file.
            UnavailableError: The server does not answer.
        """

        def read(file: Any) -> bytes:
            if file.tell() != self._position:
                file.seek(self._position)
            return file.read(-1 if size is None else size)

        data = self._attempt(read)
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, and return the number of bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file; its blocks are kept for a while."""
        key, file = self._key, self._file
        self._key, self._file = None, None
        if file is not None and key is not None:
            _idle[key] = file
            while len(_idle) > _MAX_IDLE:
                _close(_idle.popitem(last=False)[1])
        else:
            _close(file)
        super().close()

    def _attempt(self, use: Callable[[Any], T]) -> T:
        """Apply a function to the open file, again on a new one after a temporary failure."""
        for pause in (*RETRY_SECONDS, None):
            try:
                if self._file is None:
                    self._key, self._file = _opened(self._url)
                return use(self._file)
            except (MidwayError, *_FINAL):
                raise
            except ValueError as error:
                # fsspec's for servers that answer only with whole files.
                raise BadClipError(
                    self._url,
                    f"cannot be read in parts ({one_line(error)})",
                    "download it, or use a server that supports range requests",
                ) from error
            except Exception as error:
                self._discard()
                if pause is None:
                    raise UnavailableError(
                        self._url,
                        f"cannot be read at the moment ({one_line(error)}) after "
                        f"{len(RETRY_SECONDS) + 1} attempts",
                        "check the network, then try again",
                    ) from error
                time.sleep(pause)
        raise AssertionError

    def _discard(self) -> None:
        file, self._key, self._file = self._file, None, None
        _close(file)


def _close(file: Any) -> None:
    with suppress(Exception):  # the connection is lost; the error of reading counts
        if file is not None:
            file.close()
