"""An index of the headers of many videos, so that training on 70,000 files starts in seconds.

One JSON line a video, below a first line that names the root. A record counts as long as the file
has the size and the time of change that it had; so an old index is never wrong, only slower. To
build it again reads what is new, has changed or could not be used.
"""

import json
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from midway.atomic import write_atomically
from midway.data.clip import BadClipError
from midway.data.files import FoundFile, find_files, is_url, open_binary
from midway.data.video.file import VIDEO_SUFFIXES, read_timing
from midway.data.video_clip import VideoClip
from midway.data.workers.pool import Reading, Workers
from midway.errors import MidwayError

INDEX_NAME = "midway-index.jsonl"
VERSION = 1
_log = logging.getLogger(__name__)
_FILES_PER_TASK = 64


@dataclass(frozen=True, kw_only=True)
class Record:
    """What the header of one video said: its timing, or why it cannot be used."""

    name: str
    size: int
    modified: str
    duration_seconds: float = 0.0
    fps: float = 0.0
    error: str = ""

    def clip(self, file: FoundFile) -> VideoClip:
        """The video as a clip."""
        return VideoClip(file.name, file.location, self.duration_seconds, self.fps)


@dataclass(frozen=True, kw_only=True)
class IndexSummary:
    """What an index holds, and how much of it was there before."""

    file: str
    videos: int
    unusable: int
    reused: int
    """Records taken over from an earlier index, because their files have not changed."""


def is_video(file: FoundFile) -> bool:
    """Whether a file's name says that it is a video."""
    return PurePosixPath(file.name).suffix.lower() in VIDEO_SUFFIXES


def read_header(file: FoundFile) -> Record:
    """Read the header of a video; no frame is decoded."""
    try:
        timing = read_timing(file.location)
    except BadClipError as error:
        return Record(name=file.name, size=file.size, modified=file.modified, error=str(error))
    return Record(
        name=file.name,
        size=file.size,
        modified=file.modified,
        duration_seconds=timing.duration_seconds,
        fps=timing.fps,
    )


def index_of(root: str) -> str:
    """Where the index of a folder is kept unless another place is given."""
    return f"{root.rstrip('/')}/{INDEX_NAME}"


def is_index(location: str) -> bool:
    """Whether a location names an index rather than the files themselves."""
    return location.endswith(".jsonl")


def read_index(location: str) -> tuple[str, dict[str, Record]]:
    """Root and records, by name, of an index.

    Raises:
        MidwayError: It is missing, or is no index of this version.
    """
    try:
        with open_binary(location) as file:
            return _parse(file)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise MidwayError(
            f"{location}: is no index of videos ({error}); remove it, or make another with midway "
            "prepare SRC OTHER.jsonl --index-only"
        ) from error


def known_records(root: str) -> dict[str, Record]:
    """Records of the index that lies in a folder; none, and a warning, if it cannot be read."""
    try:
        return read_index(index_of(root))[1]
    except MidwayError as error:
        if not isinstance(error.__cause__, OSError):  # else there is none
            _log.warning("%s; until then headers are read anew", error)
        return {}


def records_that_hold(records: dict[str, Record], files: Iterable[FoundFile]) -> dict[str, Record]:
    """Those of the records, by name, whose files are as they were."""
    return {
        file.name: record
        for file in files
        if (record := records.get(file.name))
        and (record.size, record.modified) == (file.size, file.modified)
    }


def build_index(
    root: str,
    destination: str | None = None,
    *,
    num_workers: int,
    timeout_seconds: float,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> IndexSummary:
    """Read the headers of all videos below a folder, and write its index.

    What an earlier index of the same place says of unchanged files is taken over, unless they could
    not be used: why may have passed, as a slow disk does.

    Args:
        root: Folder or URL.
        destination: File to write the index to; None writes it into the folder.
        num_workers: Processes that read; 0 reads in this one.
        timeout_seconds: How long one file may take before it counts as unusable.
        tell: Called with how many files are done, and of how many.

    Raises:
        MidwayError: There is no video, or the index cannot be written there.
    """
    destination = destination or index_of(root)
    if is_url(destination):
        raise MidwayError(
            f"{destination}: an index is written to a local file; name one behind {root}"
        )
    file = Path(destination)
    root = root if is_url(root) else str(Path(root).resolve())
    videos = [found for found in find_files(root) if is_video(found)]
    if not videos:
        raise MidwayError(f"{root}: holds no video; point midway prepare at a folder that does")
    if not os.access(file.parent, os.W_OK):
        raise MidwayError(f"{file}: no file can be written there; name one behind {root}")
    before = read_index(destination)[1] if file.exists() else {}
    usable = {name: record for name, record in before.items() if not record.error}
    known = records_that_hold(usable, videos)
    new = [video for video in videos if video.name not in known]
    groups = [new[start : start + _FILES_PER_TASK] for start in range(0, len(new), _FILES_PER_TASK)]
    workers = Workers(
        _read_headers,
        num_workers=min(num_workers, len(groups)),
        timeout_seconds=timeout_seconds,
    )
    with closing(workers):
        for records in workers.map(groups):
            known |= {record.name: record for record in records}
            tell(len(known), len(videos))
    write_atomically(file, lambda opened: _write(opened, root, known.values()))
    return IndexSummary(
        file=str(file),
        videos=len(videos),
        unusable=sum(bool(record.error) for record in known.values()),
        reused=len(videos) - len(new),
    )


def _read_headers(files: list[FoundFile], reading: Reading) -> list[Record]:
    return [_read_header(file, reading) for file in files]


def _read_header(file: FoundFile, reading: Reading) -> Record:
    if reason := reading.lost.get(file.location):
        error = BadClipError(file.location, reason, "re-encode it or remove it")
        return Record(name=file.name, size=file.size, modified=file.modified, error=str(error))
    reading(file.location)
    return read_header(file)


def _write(opened: BinaryIO, root: str, records: Iterable[Record]) -> None:
    lines: list[dict[str, Any]] = [{"midway_index": VERSION, "root": root}]
    lines += [asdict(record) for record in records]
    opened.write("".join(json.dumps(line) + "\n" for line in lines).encode())


def _parse(file: BinaryIO) -> tuple[str, dict[str, Record]]:
    first, *lines = file.read().decode().splitlines() or ["{}"]
    head = json.loads(first)
    if head["midway_index"] != VERSION:
        raise ValueError(f"its version is {head['midway_index']}, not {VERSION}")
    records = [Record(**json.loads(line)) for line in lines]
    return str(head["root"]), {record.name: record for record in records}
