"""Records of video headers, and reading of the index files that contain them."""

import json
import logging
import math
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Self

from midway.data.clip import BadClipError
from midway.data.clips.roots import is_list
from midway.data.files import FoundFile, open_binary
from midway.data.remote import UnavailableError
from midway.data.tars import is_tar
from midway.data.video.file import VideoClip
from midway.data.video.frame_times import read_timing
from midway.data.video.header import MAX_FRAMES, NOTES, VIDEO_SUFFIXES
from midway.errors import MidwayError, one_line

INDEX_NAME = "midway-index.jsonl"
VERSION = 1
_TIMED = "frame_times"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Record:
    """Timing of one video, or the reason why it cannot be used."""

    name: str
    """Path relative to the root of the index."""
    size: int
    """Bytes of the file."""
    modified: str
    """Time of change or content tag of the file, see `FoundFile`."""
    duration_seconds: float = 0.0
    """Time from the first frame to the last; 0 after an error."""
    fps: float = 0.0
    """Average or typical frames per second; 0 after an error."""
    error: str = ""
    """One-line reason why the video cannot be used; empty if it can."""
    frame_times: str = ""
    """Times of the frames, see `pack_times`, in base 64; empty if they are even."""
    notes: Sequence[str] = ()
    """Keys in `NOTES`."""

    @classmethod
    def failed(cls, file: FoundFile, error: BadClipError) -> Self:
        """Return the record of a video that cannot be used."""
        return cls(name=file.name, size=file.size, modified=file.modified, error=str(error))

    def clip(self, file: FoundFile) -> VideoClip:
        """Return the video as a clip."""
        frame_times = b64decode(self.frame_times)
        return VideoClip(file.name, file.location, self.duration_seconds, self.fps, frame_times)

    def line(self) -> dict[str, Any]:
        """Return the record as it is written: without empty optional fields."""
        optional = ("frame_times", "notes")
        return {k: v for k, v in asdict(self).items() if v or k not in optional}


def is_video(file: FoundFile) -> bool:
    """Return whether the suffix of a file is that of a video."""
    return PurePosixPath(file.name).suffix.lower() in VIDEO_SUFFIXES


def read_header(file: FoundFile, announce: Callable[[], None] = lambda: None) -> Record:
    """Read the timing of a video.

    Args:
        file: The video.
        announce: Called regularly while a long file is read.

    Raises:
        BadClipError: As in `read_timing`.
    """
    timing = read_timing(file.location, announce)
    return Record(
        name=file.name,
        size=file.size,
        modified=file.modified,
        duration_seconds=timing.duration_seconds,
        fps=timing.fps,
        frame_times=b64encode(timing.frame_times).decode(),
        notes=timing.notes,
    )


def index_of(root: str) -> str:
    """Return the default path or URL of an index: in a folder, or beside a list or tar file."""
    return (
        f"{root}.{INDEX_NAME}"
        if is_list(root) or is_tar(root)
        else f"{root.rstrip('/')}/{INDEX_NAME}"
    )


def is_index(location: str) -> bool:
    """Return whether a location is an index rather than a folder or a video."""
    return location.endswith(".jsonl")


def head_of_index(root: str) -> dict[str, Any]:
    """Return the first line of an index for a root."""
    return {"midway_index": VERSION, "root": root, _TIMED: True}


def is_timed(location: str) -> bool:
    """Return whether an index has the frame times of its uneven videos; those of 0.1 do not.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not an index.
    """
    with open_binary(location) as file:
        return bool(json.loads(file.readline()).get(_TIMED))


def read_index(location: str) -> tuple[str, dict[str, Record]]:
    """Return the root of an index, and its records by name.

    Raises:
        MidwayError: The file is missing, or is not an index of this version.
    """
    try:
        with open_binary(location) as file:
            return _parse(file)
    except (OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise MidwayError(
            f"{location}: is not a video index ({one_line(error)}); remove it, or write another "
            "with `midway prepare SRC OTHER.jsonl --index-only`"
        ) from error


def known_records(root: str) -> dict[str, Record]:
    """Return the records of the index in a folder, or warn if it is damaged; {} without one.

    Raises:
        UnavailableError: A URL cannot be read at the moment.
    """
    try:
        return read_index(index_of(root))[1]
    except UnavailableError:
        raise
    except MidwayError as error:
        if not isinstance(error.__cause__, OSError):  # an OSError means that there is no index
            _log.warning("%s; until then all headers are read", error)
        return {}


def unchanged_records(records: dict[str, Record], files: Iterable[FoundFile]) -> dict[str, Record]:
    """Return the records, by name, of files that have not changed since."""
    return {
        file.name: record
        for file in files
        if (record := records.get(file.name))
        and (record.size, record.modified) == (file.size, file.modified)
    }


def _parse(file: BinaryIO) -> tuple[str, dict[str, Record]]:
    first, *lines = file.read().decode().splitlines() or ["{}"]
    head = json.loads(first)
    if head["midway_index"] != VERSION:
        raise ValueError(f"version {head['midway_index']} instead of {VERSION}")
    records = [_checked(Record(**json.loads(line))) for line in lines]
    return str(head["root"]), {record.name: record for record in records}


def _checked(record: Record) -> Record:
    """Return a record whose values are of the right type and within the bounds of headers.

    Raises:
        TypeError, ValueError: One is not.
    """
    texts = (record.name, record.modified, record.error, record.frame_times)
    if not all(isinstance(text, str) for text in texts) or type(record.size) is not int:
        raise TypeError("a record with values of a wrong type")
    if not isinstance(record.notes, list | tuple) or not set(record.notes) <= NOTES.keys():
        raise TypeError("a record with unknown notes")
    duration, fps = record.duration_seconds, record.fps
    if not all(type(number) in (int, float) for number in (duration, fps)):
        raise TypeError("a record with values of a wrong type")
    is_usable = duration > 0 and 0 < fps < math.inf and duration * fps <= MAX_FRAMES
    if not is_usable and not record.error:
        raise ValueError(f"a record of {duration:g} s at {fps:g} frames per second")
    b64decode(record.frame_times, validate=True)
    return record
