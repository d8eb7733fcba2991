"""Records of video headers, and the index file that holds them."""

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from midway.data.clip import BadClipError
from midway.data.files import FoundFile, open_binary
from midway.data.video.file import VIDEO_SUFFIXES, VideoClip, read_timing
from midway.errors import MidwayError

INDEX_NAME = "midway-index.jsonl"
VERSION = 1
_log = logging.getLogger(__name__)


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


def _parse(file: BinaryIO) -> tuple[str, dict[str, Record]]:
    first, *lines = file.read().decode().splitlines() or ["{}"]
    head = json.loads(first)
    if head["midway_index"] != VERSION:
        raise ValueError(f"its version is {head['midway_index']}, not {VERSION}")
    records = [Record(**json.loads(line)) for line in lines]
    return str(head["root"]), {record.name: record for record in records}
