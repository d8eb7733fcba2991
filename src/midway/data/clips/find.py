"""Discovery of the clips below a root: videos and frame sequences long enough for a sample."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from midway.data.clip import BadClipError, Clip
from midway.data.clips.frame_folder import FrameSequence, group_sequences
from midway.data.clips.frame_numbers import natural_key
from midway.data.clips.headers import (
    Tail,
    read_blank_tails,
    read_headers,
    read_store_apart,
)
from midway.data.clips.index import (
    INDEX_NAME,
    Record,
    index_of,
    is_index,
    is_timed,
    known_records,
    read_index,
    unchanged_records,
)
from midway.data.clips.lerobot import find_episodes, warn_of_undivided
from midway.data.clips.listing import Listing, list_kinds, tell_passed_over
from midway.data.clips.parts import divide_into_stretches
from midway.data.clips.roots import EVERYTHING, Selection, files_of
from midway.data.clips.skipped import SkippedClip
from midway.data.clips.store import is_store
from midway.data.clips.timing import Gap, has_sample, shortest_step
from midway.data.files import FoundFile, is_url
from midway.data.video.file import VideoClip
from midway.data.video.header import NOTES
from midway.errors import MidwayError, counted

_MANY_FILES = 1000
_Headers = Callable[[Sequence[FoundFile]], Iterable[list[Record]]]
"""Function that reads the headers of videos."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClipList:
    """Usable clips in natural order of name, and skipped ones."""

    clips: tuple[Clip, ...]
    skipped: tuple[SkippedClip, ...]

    @property
    def total(self) -> int:
        """Number of usable and skipped clips."""
        return len(self.clips) + len(self.skipped)

    @property
    def seconds(self) -> float:
        """Duration of the usable clips."""
        return float(sum(clip.frame_seconds[-1] for clip in self.clips))


def find_clips(
    root: str,
    *,
    fps: float,
    gap_seconds: Gap,
    num_frames: int = 2,
    cut_blank_tail: bool = False,
    selection: Selection = EVERYTHING,
    num_workers: int = 0,
    timeout_seconds: float = 60.0,
) -> ClipList:
    """Return the clips below a root that contain a sample, and the ones that do not.

    The record of a video in an index is used as long as the file has not changed; otherwise its
    timing is read, see `read_timing`. Names that start with a dot are ignored. A warning counts the
    files that are not read.

    Args:
        root: Path or URL of a folder with videos, frame folders or both; of a single video, list of
            videos or tar file; of an index; or of a frame store.
        fps: Frames per second that the numbers of frame files count.
        gap_seconds: Smallest and largest time between neighbouring frames of a sample.
        num_frames: Number of frames in a sample.
        cut_blank_tail: If True, detect a blank ending of each video and exclude it; this decodes a
            few frames per video.
        selection: Choice of the files below the root.
        num_workers: Number of processes that open the videos; 0 opens them in this one, which a
            damaged video may crash.
        timeout_seconds: Time after which a worker counts as hanging, and its video as unusable.

    Raises:
        MidwayError: No clip below `root` contains a sample, or a folder cannot be read.
    """
    if is_store(root):
        clips = read_store_apart(root, num_workers=num_workers, timeout_seconds=timeout_seconds)
        readable: list[Clip] = [*selection.of(root, clips)]
        skipped: list[SkippedClip] = []
    else:
        root, known = _root_and_records(root)
        headers = partial(read_headers, num_workers=num_workers, timeout_seconds=timeout_seconds)
        readable, skipped = _clips_in(root, known, fps, headers, selection)
    if cut_blank_tail:
        videos = [clip for clip in readable if isinstance(clip, VideoClip)]
        tails = read_blank_tails(videos, num_workers=num_workers, timeout_seconds=timeout_seconds)
        readable, skipped = _without_tails(readable, skipped, tails)
    readable.sort(key=lambda clip: natural_key(clip.name))
    usable = [clip for clip in readable if has_sample(clip, gap_seconds, num_frames)]
    if not usable:
        raise _nothing_usable(root, readable, skipped, num_frames, gap_seconds)
    if len(usable) < len(readable):
        names = {clip.name for clip in usable}
        others = [clip for clip in readable if clip.name not in names]
        skipped += [_without_sample(clip, num_frames, gap_seconds) for clip in others]
    return ClipList(tuple(usable), tuple(skipped))


def _root_and_records(root: str) -> tuple[str, dict[str, Record]]:
    """Return the folder of the clips, and the records of its index by name."""
    index = root if is_index(root) else index_of(root)
    root, known = read_index(index) if is_index(root) else (root, known_records(root))
    if known and not is_timed(index):
        _log.warning(
            "%s: was written without the times of frames, so that videos of a variable frame rate "
            "cannot be read; run `midway prepare %s %s --index-only` again",
            *(index, root, index),
        )
    return root, known


def _clips_in(
    root: str, known: dict[str, Record], fps: float, headers: _Headers, selection: Selection
) -> tuple[list[Clip], list[SkippedClip]]:
    found = files_of(root)
    episodes = find_episodes(found.files)
    listing = list_kinds(file for file in found.files if not episodes.is_own(file))
    if not listing.images and not listing.videos:
        raise _nothing_found(root, found.files, listing)
    chosen = list_kinds(selection.of(root, listing.images + listing.videos))
    clips: list[Clip] = [*group_sequences(chosen.images, fps=fps)]
    videos = chosen.videos
    if selection.camera:
        videos = episodes.of_camera(videos, selection.camera, root)
    tell_passed_over(root, listing)
    _tell_gone(root, found.files, known)
    skipped = []
    records = _records(root, videos, known, headers)
    _tell_notes(root, records)
    for file, record in zip(videos, records, strict=True):
        if record.error:
            skipped.append(SkippedClip(file.name, record.error))
        else:
            clips.append(record.clip(file))
    clips = episodes.divide(clips, skipped)
    warn_of_undivided(root, clips)
    return divide_into_stretches(clips, found.stretches, skipped), skipped


def _records(
    root: str, videos: list[FoundFile], known: dict[str, Record], headers: _Headers
) -> list[Record]:
    """Return the records of all videos; read the headers of new and changed files."""
    records = unchanged_records(known, videos)
    new = [file for file in videos if file.name not in records]
    if len(new) > _MANY_FILES:
        _log.warning(
            "%s: reading the headers of %s; `midway prepare %s --index-only` writes %s, "
            "which reduces this to seconds",
            *(root, counted(len(new), "video"), root, INDEX_NAME),
        )
    records |= {record.name: record for group in headers(new) for record in group}
    return [records[file.name] for file in videos]


def _nothing_found(root: str, files: Sequence[FoundFile], listing: Listing) -> MidwayError:
    if not is_url(root) and Path(root).is_file():
        return MidwayError(
            f"{root}: is neither a video, a folder, a list (.txt, .csv), a tar file with videos or "
            "images, an index (.jsonl) nor a store (.lance); extract another archive and give its "
            "folder"
        )
    passed_over = f"; passed over: {listing.passed_over}" if listing.passed_over else ""
    return MidwayError(
        f"{root}: contains {'no video and no image' if files else 'no files'}; "
        f"point data.root at a folder of videos or of frames{passed_over}"
    )


def _tell_gone(root: str, files: Sequence[FoundFile], known: dict[str, Record]) -> None:
    num_gone = len(known.keys() - {file.name for file in files})
    if num_gone:
        _log.warning(
            "%s: %d of %s in its index %s gone; write the index again if that is intended",
            *(root, num_gone, counted(len(known), "video"), "is" if num_gone == 1 else "are"),
        )


def _tell_notes(root: str, records: Sequence[Record]) -> None:
    counts = Counter(note for record in records for note in record.notes)
    for note, text in NOTES.items():
        if counts[note]:
            videos = counted(len(records), "video")
            _log.warning("%s: in %d of %s, %s", root, counts[note], videos, text)


def _without_tails(
    clips: Sequence[Clip], skipped: Sequence[SkippedClip], tails: Sequence[Tail]
) -> tuple[list[Clip], list[SkippedClip]]:
    """Return the clips with blank endings of videos cut off, each with a warning.

    Args:
        clips: Clips of any kind.
        skipped: Clips that cannot be used.
        tails: Starts of the blank endings of the videos among the clips, in order.
    """
    kept: list[Clip] = []
    bad = [*skipped]
    starts = iter(tails)
    for clip in clips:
        if not isinstance(clip, VideoClip):
            kept.append(clip)
            continue
        start = next(starts)
        if start == 0:
            start = BadClipError(clip.location, "is blank from beginning to end", "remove it")
        if isinstance(start, BadClipError):
            bad.append(SkippedClip(clip.name, str(start)))
        else:
            kept.append(clip if start is None else _without_tail(clip, start))
    return kept, bad


def _without_tail(clip: VideoClip, blank_seconds: float) -> VideoClip:
    _log.warning(
        "%s: blank from %.2f s to its end at %.2f s; this part is not used",
        *(clip.location, blank_seconds, clip.duration_seconds),
    )
    return replace(clip, duration_seconds=blank_seconds - 1 / clip.fps)


def _without_sample(clip: Clip, num_frames: int, gap_seconds: Gap) -> SkippedClip:
    wanted = _wanted(num_frames, gap_seconds)
    if _is_slow(clip, gap_seconds):
        reason = f"has frames {shortest_step(clip):.3g} s apart, too far for {wanted}"
    else:
        times = clip.frame_seconds
        reason = f"lasts {times[-1]:.2f} s ({counted(len(times), 'frame')}), too short for {wanted}"
    # The folder of a single image would not say which image is meant.
    location = clip.location
    if isinstance(clip, FrameSequence) and len(clip.frames) == 1:
        location = clip.frames[0]
    error = BadClipError(location, reason, "change --data.gap-seconds or remove it")
    return SkippedClip(clip.name, str(error))


def _nothing_usable(
    root: str,
    readable: Sequence[Clip],
    skipped: Sequence[SkippedClip],
    num_frames: int,
    gap_seconds: Gap,
) -> MidwayError:
    if not readable and not skipped:
        return MidwayError(f"{root}: contains no clip; prepare it again from usable videos")
    if not readable:
        return MidwayError(
            f"{root}: no usable clip among {len(skipped)}; the first: {skipped[0].reason}"
        )
    longest = max(readable, key=lambda clip: clip.frame_seconds[-1])
    if _is_slow(longest, gap_seconds):
        reason = f"{longest.name}, has frames {shortest_step(longest):.3g} s apart"
        remedy = "increase --data.gap-seconds"
    else:
        reason = f"{longest.name}, lasts {longest.frame_seconds[-1]:.2f} s"
        remedy = "change --data.gap-seconds or use longer clips"
    return MidwayError(
        f"{root}: no clip contains {_wanted(num_frames, gap_seconds)}, the longest, {reason}; "
        f"{remedy}"
    )


def _wanted(num_frames: int, gap_seconds: Gap) -> str:
    if num_frames == 1:
        return "a frame"
    return f"{num_frames} frames {gap_seconds[0]:g} to {gap_seconds[1]:g} s apart"


def _is_slow(clip: Clip, gap_seconds: Gap) -> bool:
    """Return whether even neighbouring frames are further apart than the largest gap."""
    return gap_seconds[1] < shortest_step(clip) < math.inf
