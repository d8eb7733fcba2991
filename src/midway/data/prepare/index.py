"""Writing of indexes of video headers, with which training on 70,000 files starts in seconds.

The first line of an index names the root; every other line is the JSON record of a video. A record
is valid while the file keeps its size and modification time, so an outdated index is slower but
never wrong. A rebuild reads only files that are new, have changed or were unusable.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from midway.atomic import write_atomically
from midway.config import json_text
from midway.data.clips.headers import read_headers
from midway.data.clips.index import (
    Record,
    head_of_index,
    index_of,
    is_timed,
    is_video,
    read_index,
    unchanged_records,
)
from midway.data.clips.roots import files_of
from midway.data.files import is_url
from midway.errors import MidwayError


@dataclass(frozen=True, kw_only=True)
class IndexSummary:
    """Contents of an index after a build."""

    file: str
    """Path of the index."""
    videos: int
    """Number of videos."""
    unusable: int
    """Number of videos that cannot be used."""
    reused: int
    """Number of records from an earlier index, as their files have not changed."""


def build_index(
    root: str,
    destination: str | None = None,
    *,
    num_workers: int,
    timeout_seconds: float,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> IndexSummary:
    """Read the headers of all videos below a folder, and write its index.

    Records of unchanged files are reused from an earlier index at the same path. Unusable files are
    read again, because the reason may have been temporary, such as a slow disk.

    Args:
        root: Path or URL of a folder, or of a list of videos or a tar file.
        destination: File to write the index to; None writes it into the folder, or beside the list.
        num_workers: Number of worker processes; 0 reads in this process.
        timeout_seconds: Time after which a file counts as unusable.
        report: Called with the number of finished files and of all files.

    Raises:
        MidwayError: There is no video, or the index cannot be written.
    """
    destination = destination or index_of(root)
    if is_url(destination):
        raise MidwayError(f"{destination}: an index must be a local file; give one after {root}")
    file = Path(destination)
    root = root if is_url(root) else str(Path(root).resolve())
    videos = [found for found in files_of(root).files if is_video(found)]
    if not videos:
        raise MidwayError(
            f"{root}: contains no video; point `midway prepare` at a folder with videos"
        )
    if not os.access(file.parent, os.W_OK):
        raise MidwayError(f"{file}: cannot be written; give another file after {root}")
    before = read_index(destination)[1] if file.exists() else {}
    if before and not is_timed(destination):
        before = {}  # an older version took all videos for evenly timed
    usable = {name: record for name, record in before.items() if not record.error}
    known = unchanged_records(usable, videos)
    new = [video for video in videos if video.name not in known]
    for records in read_headers(new, num_workers=num_workers, timeout_seconds=timeout_seconds):
        known |= {record.name: record for record in records}
        report(len(known), len(videos))
    write_atomically(file, lambda opened: _write(opened, root, known.values()))
    return IndexSummary(
        file=str(file),
        videos=len(videos),
        unusable=sum(bool(record.error) for record in known.values()),
        reused=len(videos) - len(new),
    )


def _write(opened: BinaryIO, root: str, records: Iterable[Record]) -> None:
    lines = [head_of_index(root), *(record.line() for record in records)]
    opened.write("".join(json_text(line) + "\n" for line in lines).encode())
