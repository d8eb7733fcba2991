"""Files of a root: those of a folder, of a list of videos, or in tar files; and their selection."""

import logging
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from midway.data.clips.frame_folder import IMAGE_SUFFIXES
from midway.data.files import (
    FoundFile,
    absolute,
    find_files,
    is_folder,
    is_url,
    open_binary,
)
from midway.data.tars import find_members, is_tar
from midway.data.video.header import VIDEO_SUFFIXES
from midway.errors import MidwayError, one_line

_LIST_SUFFIXES = (".txt", ".csv", ".tsv")
_MAX_LIST_BYTES = 2**30
_SEPARATOR = re.compile(r"[\s,;]+")
_VIDEO_PATH = re.compile(
    rf"(?P<path>[^\0]+(?:{'|'.join(map(re.escape, sorted(VIDEO_SUFFIXES)))}))"
    r"(?:[\s,;]+(?P<rest>.*))?",
    re.IGNORECASE,
)
_log = logging.getLogger(__name__)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


NamedT = TypeVar("NamedT", bound=_Named)

Stretch = tuple[float, float]
"""Start and end in seconds of a part of a video."""
WHOLE: Stretch = (0.0, math.inf)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Choice of the files below a root."""

    include: tuple[str, ...] = ()
    """Patterns (`*`, `?`, `[abc]`; `*` also matches slashes) of names to read; all if empty."""
    exclude: tuple[str, ...] = ()
    """Patterns of names not to read."""
    camera: str = ""
    """Camera of LeRobot datasets, or its part after the last dot; empty for all cameras."""

    def of(self, root: str, files: Sequence[NamedT]) -> list[NamedT]:
        """Return the files, or the clips of a store, whose names match the patterns.

        A warning names each pattern that matches nothing.

        Raises:
            MidwayError: No file is left.
        """
        for option, patterns in (("include", self.include), ("exclude", self.exclude)):
            for pattern in patterns:
                if not any(fnmatchcase(file.name, pattern) for file in files):
                    _log.warning("data.%s: %s matches no file below %s", option, pattern, root)
        kept = [file for file in files if self._keeps(file.name)]
        if files and not kept:
            raise MidwayError(
                f"{root}: data.include and data.exclude leave none of {len(files)} files, the "
                f"first of which is {files[0].name}; change the patterns"
            )
        return kept

    def _keeps(self, name: str) -> bool:
        is_included = not self.include or any(fnmatchcase(name, each) for each in self.include)
        return is_included and not any(fnmatchcase(name, each) for each in self.exclude)


EVERYTHING = Selection()


@dataclass(frozen=True)
class RootFiles:
    """Files of a root, and the parts of videos that a list asks for."""

    files: list[FoundFile]
    stretches: dict[str, list[Stretch]] = field(default_factory=dict)
    """Parts by name of the video; other files are read whole."""


def is_list(root: str) -> bool:
    """Return whether a root is a list of videos: a text, CSV or TSV file."""
    return root.lower().endswith(_LIST_SUFFIXES) and (is_url(root) or Path(root).is_file())


def files_of(root: str) -> RootFiles:
    """Return the files of a list, in a tar file, or below a folder.

    Tar files in a folder are read if it contains no other video and no image.

    Raises:
        MidwayError: The root does not exist, or a folder, list or tar file cannot be read.
    """
    if is_list(root):
        return _read_list(root)
    files = find_files(root)
    tars = [file for file in files if is_tar(file.name)]
    if tars and not any(_is_clip(file) for file in files):
        in_folder = is_folder(root.removeprefix("file://"))
        members = [member for tar in tars for member in find_members(tar, prefix=in_folder)]
        return RootFiles([*(file for file in files if not is_tar(file.name)), *members])
    return RootFiles(files)


def _is_clip(file: FoundFile) -> bool:
    return PurePosixPath(file.name).suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES


def _read_list(location: str) -> RootFiles:
    """Read a list of videos: on each line a path, optionally a label, a start and an end.

    Raises:
        MidwayError: The list cannot be read, or a line is none of these.
    """
    found: dict[str, FoundFile] = {}
    stretches: defaultdict[str, list[Stretch]] = defaultdict(list)
    folder = absolute(location).rpartition("/")[0]
    for number, name, stretch in _lines(location):
        if name not in found:
            found[name] = _listed_file(name, folder)
        if stretch in stretches[name]:
            raise MidwayError(f"{location}: line {number} repeats {name}; remove it")
        stretches[name].append(stretch)
    if not found:
        raise MidwayError(f"{location}: lists no video; write the path of one on each line")
    parts = {name: times for name, times in stretches.items() if times != [WHOLE]}
    return RootFiles(list(found.values()), parts)


def _lines(location: str) -> Iterator[tuple[int, str, Stretch]]:
    """Yield number, path and part of each line of a list."""
    try:
        with open_binary(location) as file:
            text = file.read(_MAX_LIST_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MidwayError(
            f"{location}: cannot be read as a list of videos ({one_line(error)}); write the path "
            "of one on each line"
        ) from error
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _VIDEO_PATH.fullmatch(line.replace('"', ""))
        rest = [each for each in _SEPARATOR.split(match["rest"] or "") if each] if match else []
        stretch = _stretch(rest)
        if match is None or stretch is None or "\0" in line:
            raise MidwayError(
                f"{location}: line {number} is {line[:60]!r}; give the path of a video, then "
                "optionally a label, and optionally a start and an end in seconds"
            )
        yield number, match["path"], stretch


def _stretch(rest: Sequence[str]) -> Stretch | None:
    """Return the part that follows a path: nothing, a label, two times, or a label and two times.

    Returns:
        None if it is none of these.
    """
    if len(rest) < 2:
        return WHOLE
    if len(rest) > 3:
        return None
    try:
        start, end = map(float, rest[-2:])
    except ValueError:
        return None
    return (start, end) if 0 <= start < end else None


def _listed_file(name: str, folder: str) -> FoundFile:
    location = name if is_url(name) or name.startswith("/") else f"{folder}/{name}"
    if is_url(location):
        return FoundFile(location, name, 0, "")
    try:
        status = Path(location).stat()
    except OSError:
        return FoundFile(location, name, 0, "")  # reading its header gives the error
    return FoundFile(location, name, status.st_size, str(status.st_mtime_ns))
