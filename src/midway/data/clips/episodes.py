"""Episodes of LeRobot datasets (version 3), several of which share a video file.

The tables in ``meta/episodes`` state for each episode the video files and the times within them.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from midway.data.clip import Clip, ClipReader, Frame
from midway.data.files import FoundFile, open_binary
from midway.data.video.file import VideoClip
from midway.errors import MidwayError, counted, one_line

_TABLE = re.compile(r"(?P<dataset>(?:.*/)?)meta/episodes/.*\.parquet")
_VIDEO = re.compile(r"(?:.*/)?videos/[^/]+/chunk-\d+/file-\d+\.mp4")
_COLUMN = re.compile(r"videos/(?P<camera>.+)/file_index")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EpisodeClip:
    """Part of a video; times are relative to its first frame."""

    name: str
    video: VideoClip
    start_seconds: float
    end_seconds: float
    """End of the part, which excludes a frame that starts there."""

    @property
    def location(self) -> str:
        """Path or URL of the video."""
        return self.video.location

    @property
    def signals_location(self) -> None:
        """None, as the signals beside a video are not those of its parts."""
        return

    @property
    def fps(self) -> float:
        """Frames per second of the video."""
        return self.video.fps

    @property
    def frame_seconds(self) -> NDArray[np.float64]:
        """Times (frames,) from 0."""
        times = self._times()
        return times - times[:1]

    @contextmanager
    def open(self) -> Iterator[ClipReader]:
        """Open the video for reading the part."""
        with self.video.open() as reader:
            yield _EpisodeReader(reader, float(self._times()[0]))

    def _times(self) -> NDArray[np.float64]:
        times, half = self.video.frame_seconds, 0.5 / self.fps
        return times[(times > self.start_seconds - half) & (times < self.end_seconds - half)]


@dataclass(frozen=True)
class _EpisodeReader:
    reader: ClipReader
    first_seconds: float

    def frames_at(self, seconds: Sequence[float]) -> list[Frame]:
        asked = [self.first_seconds + max(each, 0.0) for each in seconds]
        frames = self.reader.frames_at(asked)
        return [Frame(frame.image, frame.seconds - self.first_seconds) for frame in frames]


def divide_into_episodes(files: Iterable[FoundFile], clips: Iterable[Clip]) -> list[Clip]:
    """Return clips with the videos of LeRobot datasets divided into their episodes.

    Args:
        files: All files below the root; without tables of episodes the clips stay as they are.
        clips: Clips below the root.

    Raises:
        MidwayError: A table is damaged, or pyarrow is not installed.
    """
    tables = [(file, match["dataset"]) for file in files if (match := _TABLE.fullmatch(file.name))]
    parts: defaultdict[str, list[tuple[int, float, float]]] = defaultdict(list)
    for file, dataset in tables:
        for name, number, start, end in _episodes(file):
            parts[dataset + name].append((number, start, end))
    found: list[Clip] = []
    for clip in clips:
        if not isinstance(clip, VideoClip) or clip.name not in parts:
            found.append(clip)
            continue
        for number, start, end in sorted(parts[clip.name]):
            episode = EpisodeClip(f"{clip.name}#{number:06}", clip, start, end)
            if len(episode.frame_seconds):
                found.append(episode)
    return found


def warn_of_undivided(root: str, clips: Iterable[Clip]) -> None:
    """Log a warning if videos are named like LeRobot's but no table states their episodes."""
    names = [clip.name for clip in clips if isinstance(clip, VideoClip)]
    count = sum(bool(_VIDEO.fullmatch(name)) for name in names)
    if count:
        _log.warning(
            "%s: %s named as in LeRobot datasets, but meta/episodes is missing, so that samples "
            "may reach over the end of an episode",
            *(root, f"{counted(count, 'video')} {'is' if count == 1 else 'are'}"),
        )


def has_episodes(files: Iterable[FoundFile]) -> bool:
    """Return whether files contain a table of episodes."""
    return any(_TABLE.fullmatch(file.name) for file in files)


def _episodes(file: FoundFile) -> Iterator[tuple[str, int, float, float]]:
    """Yield name of the video, number of the episode, and its start and end in seconds."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MidwayError(
            f"{file.location}: Parquet needs pyarrow; run `pip install 'midway-network[store]'`"
        ) from None
    try:
        with open_binary(file.location) as opened:
            table = pq.read_table(opened)
        cameras = [m["camera"] for name in table.column_names if (m := _COLUMN.fullmatch(name))]
        for row in table.to_pylist():
            for camera in cameras:
                field = f"videos/{camera}"
                chunk, number = int(row[f"{field}/chunk_index"]), int(row[f"{field}/file_index"])
                yield (
                    f"{field}/chunk-{chunk:03}/file-{number:03}.mp4",
                    int(row["episode_index"]),
                    float(row[f"{field}/from_timestamp"]),
                    float(row[f"{field}/to_timestamp"]),
                )
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise MidwayError(
            f"{file.location}: is not a table of LeRobot episodes ({one_line(error)}); copy it "
            "again"
        ) from error
