"""Files by location: a local path, or a URL of any file system that fsspec knows."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from fsspec.core import url_to_fs

from midway.errors import MidwayError


@dataclass(frozen=True)
class FoundFile:
    """A file below a root, and what tells whether it has changed since."""

    location: str
    """Path or URL."""
    name: str
    """Path relative to the root, with forward slashes."""
    size: int
    """Bytes."""
    modified: str
    """Time of the last change or a tag of the content, as the file system gives it."""


def is_url(location: str) -> bool:
    """Whether a location is a URL rather than a local path."""
    return "://" in location


def open_binary(location: str) -> BinaryIO:
    """Open a file for reading, from the start.

    Raises:
        OSError: It is not there or cannot be read.
    """
    if is_url(location):
        files, path = url_to_fs(location)
        return cast("BinaryIO", files.open(path, "rb"))
    return Path(location).open("rb")


def find_files(root: str) -> list[FoundFile]:
    """A single file, or all files below a folder.

    Names that start with a dot are passed over, links to folders are not followed, and what is no
    regular file (a pipe, a device) is left out: to read one may never end.

    Raises:
        MidwayError: `root` does not exist, or a folder cannot be read.
    """
    if is_url(root):
        return _remote_files(root)
    if not Path(root).exists():
        raise MidwayError(f"{root}: does not exist; point data.root at a folder that does")
    base = Path(root)
    if not base.is_dir():
        return [_local_file(str(base), base.name, base.stat())]
    return list(_walk(str(base), ""))


def _walk(folder: str, prefix: str) -> Iterator[FoundFile]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                name = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    yield from _walk(entry.path, f"{name}/")
                elif entry.is_file():
                    yield _local_file(entry.path, name, entry.stat())
    except OSError as error:
        raise MidwayError(
            f"{error.filename}: cannot be read ({error.strerror}); make it readable or move it "
            "out of data.root"
        ) from error


def _local_file(path: str, name: str, status: os.stat_result) -> FoundFile:
    if not stat.S_ISREG(status.st_mode):
        raise MidwayError(f"{path}: is neither a folder nor a file; point data.root at one")
    return FoundFile(path, name, status.st_size, str(status.st_mtime_ns))


def _remote_files(root: str) -> list[FoundFile]:
    files, base = url_to_fs(root)
    try:
        found = cast("dict[str, dict[str, Any]]", files.find(base, detail=True))
    except (OSError, ValueError) as error:
        raise MidwayError(f"{root}: cannot be listed ({error}); check the URL") from error
    if not found:
        raise MidwayError(f"{root}: does not exist or is empty; point data.root at one that is not")
    listed = []
    for path, info in found.items():
        name = path[len(base) :].lstrip("/") or path.rpartition("/")[2]
        if not any(part.startswith(".") for part in name.split("/")):
            changed = info.get("ETag") or info.get("mtime") or info.get("LastModified") or ""
            location = files.unstrip_protocol(path)
            listed.append(FoundFile(location, name, int(info.get("size") or 0), str(changed)))
    return listed
