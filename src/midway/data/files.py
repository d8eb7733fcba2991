"""Access to files by local path, or by URL of any file system that fsspec supports."""

import logging
import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from fsspec.core import url_to_fs

from midway.data.clip import BadClipError
from midway.data.file_part import FilePart, member_of
from midway.data.remote import RemoteFile, file_system
from midway.errors import MidwayError, counted, one_line

_ARCHIVES = frozenset(["zip", "tar", "libarchive"])
"""Schemes of the files in archives, whose URLs cannot be opened one by one."""
_log = logging.getLogger(__name__)


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


def is_folder(location: str) -> bool:
    """Return whether there is a folder at a path or URL."""
    if not is_url(location):
        return Path(location).is_dir()
    files, path = url_to_fs(location)
    return files.isdir(path)


def is_file(location: str) -> bool:
    """Return whether there is a file at a path or URL."""
    if not is_url(location):
        return Path(location).is_file()
    files, path = url_to_fs(location)
    return files.isfile(path)


def absolute(location: str) -> str:
    """Return a location that is valid from every working directory."""
    return location if is_url(location) else str(Path(location).absolute())


def open_binary(location: str) -> BinaryIO:
    """Open a file, or a member of a tar file, for reading.

    Raises:
        OSError: The file is missing or cannot be read.
        BadClipError: The path is not a regular file, or the server cannot send parts of a file.
        UnavailableError: The server does not answer, after several attempts.
        MidwayError: The scheme of the URL is not supported by this installation.
    """
    location = location.removeprefix("file://")
    if (member := member_of(location)) is not None:
        archive = open_binary(member.archive)
        return cast("BinaryIO", FilePart(archive, member.start, member.size))
    if is_url(location):
        return cast("BinaryIO", RemoteFile(location))
    path = Path(location)
    # Opening a pipe would block until a process writes to it, and a device may never end.
    if path.exists() and not path.is_file():
        raise BadClipError(location, "is not a regular file", "replace it by a file or remove it")
    return path.open("rb")


def find_files(root: str) -> list[FoundFile]:
    """List a single file, or all files below a folder.

    Names that start with a dot are ignored. Symbolic links to folders are followed, but no folder
    is listed twice, so loops end. Pipes, devices and broken links are listed too; opening them
    raises an error. A warning counts the broken links.

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
    broken: list[str] = []
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
                    if not is_whole and not Path(entry.path).exists():
                        broken.append(entry.path)
                    status = entry.stat(follow_symlinks=is_whole)
                    found.append(_local_file(entry.path, name, status))
        except OSError as error:
            raise MidwayError(
                f"{error.filename}: cannot be read ({error.strerror}); make it readable or move it "
                "elsewhere"
            ) from error
    if broken:
        # A whole folder of clips or labels may be missing behind one.
        _log.warning(
            "%s: %s, the first %s; mend or remove them",
            base,
            counted(len(broken), "broken link"),
            broken[0],
        )
    return found


def _local_file(path: str, name: str, status: os.stat_result) -> FoundFile:
    return FoundFile(path, name, status.st_size, str(status.st_mtime_ns))


def _remote_files(root: str) -> list[FoundFile]:
    files, base = file_system(root)
    protocols = [files.protocol] if isinstance(files.protocol, str) else files.protocol
    if _ARCHIVES.intersection(protocols):
        raise MidwayError(f"{root}: archives are not read; extract it and give the folder")
    try:
        found = cast("dict[str, dict[str, Any]]", files.find(base, detail=True))
    except Exception as error:  # each file system has its own errors
        raise MidwayError(f"{root}: cannot be listed ({one_line(error)}); check the URL") from error
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
