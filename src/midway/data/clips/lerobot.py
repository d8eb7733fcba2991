"""LeRobot datasets (version 3): several episodes share a video file and a table of signals.

The tables in ``meta/episodes`` state for each episode the video of each camera with the times
within it, and the table in ``data`` that contains its actions and states.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from midway.data.clip import BadClipError, Clip, SignalSource
from midway.data.clips.parts import VideoPart
from midway.data.clips.skipped import SkippedClip
from midway.data.files import FoundFile
from midway.data.tables import read_columns
from midway.data.video.file import VideoClip
from midway.errors import MidwayError, counted, one_line

_TABLE = re.compile(r"(?P<dataset>(?:.*/)?)meta/episodes/.*\.parquet")
_OWN = re.compile(r"(?:meta/.*|data/chunk-\d+/file-\d+)\.(?:parquet|jsonl?)")
_VIDEO = re.compile(r"(?P<dataset>(?:.*/)?)videos/(?P<camera>[^/]+)/chunk-\d+/file-\d+\.mp4")
_COLUMN = re.compile(r"videos/(?P<camera>.+)/file_index")
_DATA = ("data/chunk_index", "data/file_index")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class Episode:
    """Part of a video of one camera."""

    number: int
    start_seconds: float
    end_seconds: float
    signals: SignalSource | None


@dataclass(frozen=True)
class Episodes:
    """Episodes of the LeRobot datasets below a root."""

    by_video: dict[str, list[Episode]]
    """Episodes by the name of the video that contains them."""
    datasets: frozenset[str]
    """Names of the datasets' folders with a slash at the end; empty for the root itself."""

    def is_own(self, file: FoundFile) -> bool:
        """Return whether a file is one of the datasets' tables and descriptions."""
        return any(
            file.name.startswith(dataset) and _OWN.fullmatch(file.name.removeprefix(dataset))
            for dataset in self.datasets
        )

    def of_camera(self, videos: Sequence[FoundFile], camera: str, root: str) -> list[FoundFile]:
        """Return the videos of one camera, and those outside of the datasets.

        Args:
            videos: Videos below the root.
            camera: Name of the camera, or its part after the last dot.
            root: Path or URL, for the error.

        Raises:
            MidwayError: There is no LeRobot dataset, or none with this camera.
        """
        by_camera: defaultdict[str, set[str]] = defaultdict(set)
        for video in videos:
            match = _VIDEO.fullmatch(video.name)
            if match and match["dataset"] in self.datasets:
                by_camera[match["camera"]].add(video.name)
        if not by_camera:
            raise MidwayError(
                f"data.camera = {camera}: {root} contains no LeRobot dataset; leave it out"
            )
        meant = [name for name in by_camera if camera in (name, name.rpartition(".")[2])]
        chosen = [camera] if camera in meant else meant
        if len(chosen) != 1:
            cameras = ", ".join(sorted(by_camera))
            raise MidwayError(
                f"data.camera = {camera}: the cameras of {root} are {cameras}; give one of them"
            )
        others = set().union(*(names for name, names in by_camera.items() if name != chosen[0]))
        return [video for video in videos if video.name not in others]

    def divide(self, clips: Iterable[Clip], skipped: list[SkippedClip]) -> list[Clip]:
        """Return clips with the videos of the datasets divided into their episodes.

        Args:
            clips: Clips of a root.
            skipped: List to which episodes without a frame are added.
        """
        found: list[Clip] = []
        for clip in clips:
            if not isinstance(clip, VideoClip) or clip.name not in self.by_video:
                found.append(clip)
                continue
            for each in sorted(self.by_video[clip.name], key=lambda episode: episode.number):
                name = f"{clip.name}#{each.number:06}"
                part = VideoPart(name, clip, each.start_seconds, each.end_seconds, each.signals)
                if len(part.frame_seconds):
                    found.append(part)
                    continue
                times = f"{each.start_seconds:g} to {each.end_seconds:g} s"
                error = BadClipError(clip.location, f"has no frame from {times}", "copy it again")
                skipped.append(SkippedClip(name, str(error)))
        return found


def find_episodes(files: Iterable[FoundFile]) -> Episodes:
    """Return the episodes in the tables among the files below a root.

    Raises:
        MidwayError: A table is damaged, or pyarrow is not installed.
    """
    by_video: defaultdict[str, list[Episode]] = defaultdict(list)
    datasets = set()
    for file in files:
        if match := _TABLE.fullmatch(file.name):
            datasets.add(match["dataset"])
            for video, episode in _episodes(file, match["dataset"]):
                by_video[video].append(episode)
    return Episodes(dict(by_video), frozenset(datasets))


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


def _episodes(file: FoundFile, dataset: str) -> Iterator[tuple[str, Episode]]:
    """Yield each episode of a table once per camera, with the name of its video."""
    cameras: list[str] = []

    def choose(names: list[str]) -> list[str]:
        cameras.extend(m["camera"] for name in names if (m := _COLUMN.fullmatch(name)))
        fields = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
        videos = [f"videos/{camera}/{field}" for camera in cameras for field in fields]
        # Datasets of videos alone have no tables of signals.
        return ["episode_index", *videos, *(_DATA if set(_DATA) <= set(names) else ())]

    try:
        table = read_columns(file.location, choose)
        columns = {name: column.tolist() for name, column in table.items()}
        folder = file.location.removesuffix(file.name.removeprefix(dataset))
        for row, number in enumerate(map(int, columns["episode_index"])):
            signals = None
            if _DATA[0] in columns:
                chunk, place = (int(columns[name][row]) for name in _DATA)
                signals = SignalSource(
                    f"{folder}data/chunk-{chunk:03}/file-{place:03}.parquet", episode=number
                )
            for camera in cameras:
                field = f"videos/{camera}"
                chunk, place = (
                    int(columns[f"{field}/{name}_index"][row]) for name in ("chunk", "file")
                )
                start, end = (
                    float(columns[f"{field}/{name}_timestamp"][row]) for name in ("from", "to")
                )
                video = f"{dataset}{field}/chunk-{chunk:03}/file-{place:03}.mp4"
                yield video, Episode(number, start, end, signals)
    except (OSError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise MidwayError(
            f"{file.location}: is not a table of LeRobot episodes ({one_line(error)}); copy it "
            "again"
        ) from error
