"""The clips below a folder: every video and every sequence of frames that gives pairs."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from midway.data.clip import BadClipError, Clip
from midway.data.files import FoundFile, find_files
from midway.data.frame_folder import IMAGE_SUFFIXES, group_sequences, natural_key
from midway.data.skipped import SkippedClip
from midway.data.video import VIDEO_SUFFIXES, VideoFile, read_timing
from midway.errors import MidwayError

_PROBE_THREADS = 8


@dataclass(frozen=True)
class VideoClip:
    """A video whose header was read."""

    name: str
    location: str
    duration_seconds: float
    fps: float

    @property
    def frame_seconds(self) -> NDArray[np.float64]:
        """Times (frames,) of an even frame rate: the header holds no others."""
        return np.arange(round(self.duration_seconds * self.fps) + 1) / self.fps

    def open(self) -> VideoFile:
        """The decoder of the file."""
        return VideoFile(self.location)


@dataclass(frozen=True)
class ClipList:
    """Clips that give pairs, in natural order of name, and those that do not."""

    clips: tuple[Clip, ...]
    skipped: tuple[SkippedClip, ...]

    @property
    def total(self) -> int:
        """How many there are of both."""
        return len(self.clips) + len(self.skipped)


def partners(
    frame_seconds: NDArray[np.float64],
    start_seconds: float | NDArray[np.float64],
    *,
    gap_seconds: tuple[float, float],
    fps: float,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and one past the last frame that follow each start by a gap of the given range.

    A gap counts when it is less than half a count of `fps` outside the range: frames at 1 Hz
    are partners at a gap of exactly 1 s, frames numbered at 29.97 Hz too.
    """
    slack = 0.499 / fps
    first = np.searchsorted(frame_seconds, start_seconds + gap_seconds[0] - slack, side="left")
    end = np.searchsorted(frame_seconds, start_seconds + gap_seconds[1] + slack, side="right")
    return np.asarray(first), np.asarray(end)


def start_frames(clip: Clip, gap_seconds: tuple[float, float]) -> NDArray[np.intp]:
    """Numbers of the frames of `clip` that have a partner within the range of gaps."""
    times = clip.frame_seconds
    first, end = partners(times, times, gap_seconds=gap_seconds, fps=clip.fps)
    return np.flatnonzero(end > first)


def find_clips(root: str, *, fps: float, gap_seconds: tuple[float, float]) -> ClipList:
    """Look through a folder and all below it, or at a single video file.

    The header of every video is read, no frame is decoded. Names that start with a dot are
    passed over, and links to folders are not followed.

    Args:
        root: Folder of videos, of folders of frames, or of both; or one video.
        fps: Rate at which the numbers of frame files count.
        gap_seconds: Smallest and largest time between the frames of a pair.

    Raises:
        MidwayError: Nothing below `root` gives a pair, or a folder cannot be read.
    """
    files = find_files(root)
    images = [file for file in files if _suffix(file) in IMAGE_SUFFIXES]
    videos = [file for file in files if _suffix(file) in VIDEO_SUFFIXES]
    if not images and not videos:
        raise MidwayError(
            f"{root}: holds {'files, but' if files else 'no files:'} no video and no image; "
            "point data.root at a folder of videos or of frames"
        )
    with ThreadPoolExecutor(_PROBE_THREADS) as pool:
        found = list(pool.map(_probe, videos))
    readable: list[Clip] = [clip for clip in found if not isinstance(clip, SkippedClip)]
    skipped = [clip for clip in found if isinstance(clip, SkippedClip)]
    readable += group_sequences(images, fps=fps)
    readable.sort(key=lambda clip: natural_key(clip.name))
    usable = [clip for clip in readable if start_frames(clip, gap_seconds).size]
    if not usable:
        raise _nothing_usable(root, readable, skipped, gap_seconds)
    short = {clip.name for clip in readable} - {clip.name for clip in usable}
    skipped += [_too_short(clip, gap_seconds) for clip in readable if clip.name in short]
    return ClipList(tuple(usable), tuple(skipped))


def _suffix(file: FoundFile) -> str:
    return PurePosixPath(file.name).suffix.lower()


def _probe(file: FoundFile) -> VideoClip | SkippedClip:
    try:
        timing = read_timing(file.location)
    except BadClipError as error:
        return SkippedClip(file.name, str(error))
    return VideoClip(file.name, file.location, timing.duration_seconds, timing.fps)


def _too_short(clip: Clip, gap_seconds: tuple[float, float]) -> SkippedClip:
    error = BadClipError(
        clip.location,
        f"{len(clip.frame_seconds)} frames over {clip.frame_seconds[-1]:.2f} s hold no pair "
        f"{gap_seconds[0]:g} to {gap_seconds[1]:g} s apart",
        "change data.gap_seconds or remove it",
    )
    return SkippedClip(clip.name, str(error))


def _nothing_usable(
    root: str,
    readable: Sequence[Clip],
    skipped: Sequence[SkippedClip],
    gap_seconds: tuple[float, float],
) -> MidwayError:
    if not readable:
        return MidwayError(
            f"{root}: none of its {len(skipped)} clips can be used; the first: {skipped[0].reason}"
        )
    longest = max(readable, key=lambda clip: clip.frame_seconds[-1])
    return MidwayError(
        f"{root}: no clip holds frames {gap_seconds[0]:g} to {gap_seconds[1]:g} s apart, the "
        f"longest, {longest.name}, lasts {longest.frame_seconds[-1]:.2f} s; change "
        "data.gap_seconds or give longer clips"
    )
