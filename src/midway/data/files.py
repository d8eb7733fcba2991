"""Access to files by local path, or by URL of any file system that fsspec supports."""

import io
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from midway.data.clip import BadClipError
from midway.errors import MidwayError

ResultT = TypeVar("ResultT")

RETRY_SECONDS = (0.5, 2.0)
"""Pauses before a failed read of a remote file is repeated."""
_ARCHIVES = frozenset(["zip", "tar", "libarchive"])
"""Schemes of the files in archives, whose URLs cannot be opened one by one."""


@dataclass(frozen=True)
class FoundFile:
    """A file below a root, with size and time stamp to detect changes."""

    location: str
    """Path or URL."""
    name: str
    """Path relative to the root, with forward slashes."""
    size: int
    """Size in bytes."""
    modified: str
    """Modification time or content tag, as reported by the file system."""


def is_url(location: str) -> bool:
    """Return whether a location is a URL rather than a local path."""
    return "://" in location


def absolute(location: str) -> str:
    """Return a location that is valid from every working directory."""
    return location if is_url(location) else str(Path(location).absolute())


def open_binary(location: str) -> BinaryIO:
    """Open a file for reading.

    Raises:
        OSError: The file is missing or cannot be read.
        BadClipError: The path is not a regular file.
        MidwayError: The scheme of the URL is not supported by this installation.
    """
    if is_url(location):
        files, path = _file_system(location)
        return cast("BinaryIO", RemoteFile(lambda: files.open(path, "rb")))
    path = Path(location)
    # Opening a pipe would block until a process writes to it, and a device may never end.
    if path.exists() and not path.is_file():
        raise BadClipError(location, "is not a regular file", "replace it by a file or remove it")
    return path.open("rb")


class RemoteFile(io.RawIOBase):
    """Remote file whose reads are repeated after a failure of the network.

    Args:
        open_file: Function that opens the file for reading.

    Raises:
        OSError: The file is missing, or opening or reading it fails repeatedly; drivers have errors
            of their own.
    """

    def __init__(self, open_file: Callable[[], Any]) -> None:
        self._file = _repeated(open_file)
        self.name = str(getattr(self._file, "name", "<none>"))

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return whether the file system can read parts of the file."""
        return bool(self._file.seekable())

    def readinto(self, buffer: Any) -> int:
        """Read at most as many bytes as fit into `buffer`; return their number."""
        start = self.tell()

        def read() -> bytes:
            if self._file.tell() != start:
                self._file.seek(start)
            return self._file.read(len(buffer))

        data = _repeated(read)
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        return _repeated(lambda: self._file.seek(offset, whence))

    def tell(self) -> int:
        """Return the position."""
        return int(self._file.tell())

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._file.close()
        super().close()


def _repeated(action: Callable[[], ResultT]) -> ResultT:
    """Return the result of an action, which is repeated with growing pauses if it fails."""
    for pause in (*RETRY_SECONDS, None):
        try:
            return action()
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            raise
        except Exception as error:  # each file system has its own errors
            if pause is None or isinstance(error, ValueError):
                text = str(error).partition("\n")[0] or type(error).__name__
                raise OSError(text) from error
        time.sleep(pause)
    raise AssertionError("unreachable")


def find_files(root: str) -> list[FoundFile]:
    """List a single file, or all files below a folder.

    Names that start with a dot are ignored. Symbolic links to folders are followed, but no folder
    is listed twice, so loops end. Pipes, devices and broken links are listed too; opening them
    raises an error.

    Raises:
        MidwayError: `root` does not exist or is within an archive, or a folder cannot be read.
    """
    root = root.removeprefix("file://")
    if is_url(root):
        return _remote_files(root)
    base = Path(root)
    if not base.exists():
        raise MidwayError(f"{root}: does not exist; give an existing folder or file")
    if not base.is_dir():
        return [_local_file(str(base), base.name, base.stat())]
    return _walk(str(base))


def _walk(base: str) -> list[FoundFile]:
    """List the files of a folder, then those of linked folders that it does not contain itself."""
    found: list[FoundFile] = []
    seen: set[tuple[int, int]] = set()
    folders = deque([(base, "")])
    linked: deque[tuple[str, str]] = deque()
    while folders or linked:
        folder, prefix = folders.popleft() if folders else linked.popleft()
        try:
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
            for entry in entries:
                name = prefix + entry.name
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append((entry.path, f"{name}/"))
                elif entry.is_symlink() and Path(entry.path).is_dir():
                    linked.append((entry.path, f"{name}/"))
                else:
                    is_whole = not entry.is_symlink() or Path(entry.path).is_file()
                    status = entry.stat(follow_symlinks=is_whole)
                    found.append(_local_file(entry.path, name, status))
        except OSError as error:
            raise MidwayError(
                f"{error.filename}: cannot be read ({error.strerror}); make it readable or move it "
                "elsewhere"
            ) from error
    return found


def _local_file(path: str, name: str, status: os.stat_result) -> FoundFile:
    return FoundFile(path, name, status.st_size, str(status.st_mtime_ns))


def _file_system(url: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a URL, and the path within it."""
    try:
        return url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise MidwayError(f"{url}: cannot be opened ({error}); check the URL") from error


def _remote_files(root: str) -> list[FoundFile]:
    files, base = _file_system(root)
    protocols = [files.protocol] if isinstance(files.protocol, str) else files.protocol
    if _ARCHIVES.intersection(protocols):
        raise MidwayError(f"{root}: archives are not read; extract it and give the folder")
    try:
        found = cast("dict[str, dict[str, Any]]", files.find(base, detail=True))
    except Exception as error:  # each file system has its own errors
        raise MidwayError(f"{root}: cannot be listed ({error}); check the URL") from error
    if not found:
        raise MidwayError(f"{root}: does not exist or is empty; give a folder with files")
    listed = []
    for path, info in found.items():
        name = path[len(base) :].lstrip("/") or path.rpartition("/")[2]
        if not any(part.startswith(".") for part in name.split("/")):
            changed = info.get("ETag") or info.get("mtime") or info.get("LastModified") or ""
            location = files.unstrip_protocol(path)
            listed.append(FoundFile(location, name, int(info.get("size") or 0), str(changed)))
    return listed
