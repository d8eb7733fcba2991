"""Discovery of the clips below a root: videos and frame sequences long enough for a sample."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from midway.data.clip import BadClipError, Clip
from midway.data.clips.frame_folder import group_sequences, natural_key
from midway.data.clips.index import (
    INDEX_NAME,
    Record,
    is_index,
    is_video,
    known_records,
    read_header,
    read_index,
    unchanged_records,
)
from midway.data.clips.skipped import SkippedClip
from midway.data.clips.store import is_store, read_store
from midway.data.clips.timing import Gap, has_sample
from midway.data.files import FoundFile, find_files
from midway.data.video.blank_tail import blank_tail_start
from midway.data.video.file import VideoClip
from midway.errors import MidwayError

_PROBE_THREADS = 8
_MANY_FILES = 1000
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


def find_clips(
    root: str,
    *,
    fps: float,
    gap_seconds: Gap,
    num_frames: int = 2,
    cut_blank_tail: bool = False,
) -> ClipList:
    """Return the clips below a root that contain a sample, and the ones that do not.

    The record of a video in an index is used as long as the file has not changed; otherwise its
    header is read. No frame is decoded. Names that start with a dot are ignored, and symbolic links
    to folders are not followed.

    Args:
        root: Path or URL of a folder with videos, frame folders or both; of a single video; of an
            index; or of a frame store.
        fps: Frames per second that the numbers of frame files count.
        gap_seconds: Smallest and largest time between neighbouring frames of a sample.
        num_frames: Number of frames in a sample.
        cut_blank_tail: If True, detect a blank ending of each video and exclude it; this decodes a
            few frames per video.

    Raises:
        MidwayError: No clip below `root` contains a sample, or a folder cannot be read.
    """
    if is_store(root):
        readable: list[Clip] = [*read_store(root)]
        skipped: list[SkippedClip] = []
    else:
        root, known = read_index(root) if is_index(root) else (root, known_records(root))
        readable, skipped = _clips_in(root, known, fps)
    if cut_blank_tail:
        readable, skipped = _without_tails(readable, skipped)
    readable.sort(key=lambda clip: natural_key(clip.name))
    usable = [clip for clip in readable if has_sample(clip, gap_seconds, num_frames)]
    if not usable:
        raise _nothing_usable(root, readable, skipped, _wanted(num_frames, gap_seconds))
    if len(usable) < len(readable):
        names = {clip.name for clip in usable}
        wanted = _wanted(num_frames, gap_seconds)
        skipped += [_too_short(clip, wanted) for clip in readable if clip.name not in names]
    return ClipList(tuple(usable), tuple(skipped))


def _clips_in(
    root: str, known: dict[str, Record], fps: float
) -> tuple[list[Clip], list[SkippedClip]]:
    files = find_files(root)
    clips: list[Clip] = [*group_sequences(files, fps=fps)]
    videos = [file for file in files if is_video(file)]
    if not clips and not videos:
        raise MidwayError(
            f"{root}: contains {'no video and no image' if files else 'no files'}; "
            "point data.root at a folder of videos or of frames"
        )
    skipped = []
    for file, record in zip(videos, _headers(root, videos, known), strict=True):
        if record.error:
            skipped.append(SkippedClip(file.name, record.error))
        else:
            clips.append(record.clip(file))
    return clips, skipped


def _headers(root: str, videos: list[FoundFile], known: dict[str, Record]) -> list[Record]:
    """Return the records of all videos; read the headers of new and changed files."""
    records = unchanged_records(known, videos)
    new = [file for file in videos if file.name not in records]
    if len(new) > _MANY_FILES:
        _log.warning(
            "%s: reading the headers of %d videos; `midway prepare %s --index-only` writes %s, "
            "which reduces this to seconds",
            *(root, len(new), root, INDEX_NAME),
        )
    with ThreadPoolExecutor(_PROBE_THREADS) as pool:
        records |= {record.name: record for record in pool.map(read_header, new)}
    return [records[file.name] for file in videos]


def _without_tails(
    clips: Sequence[Clip], skipped: Sequence[SkippedClip]
) -> tuple[list[Clip], list[SkippedClip]]:
    """Return the clips with blank endings of videos cut off, each with a warning."""
    kept: list[Clip] = []
    bad = [*skipped]
    for clip in clips:
        try:
            kept.append(_without_tail(clip) if isinstance(clip, VideoClip) else clip)
        except BadClipError as error:
            bad.append(SkippedClip(clip.name, str(error)))
    return kept, bad


def _without_tail(clip: VideoClip) -> VideoClip:
    blank_seconds = blank_tail_start(clip.location)
    if blank_seconds is None:
        return clip
    if blank_seconds == 0:
        raise BadClipError(clip.location, "is blank from beginning to end", "remove it")
    _log.warning(
        "%s: blank from %.2f s to its end at %.2f s; this part is not used",
        *(clip.location, blank_seconds, clip.duration_seconds),
    )
    return replace(clip, duration_seconds=blank_seconds - 1 / clip.fps)


def _wanted(num_frames: int, gap_seconds: Gap) -> str:
    return f"{num_frames} frames {gap_seconds[0]:g} to {gap_seconds[1]:g} s apart"


def _too_short(clip: Clip, wanted: str) -> SkippedClip:
    error = BadClipError(
        clip.location,
        f"lasts {clip.frame_seconds[-1]:.2f} s ({len(clip.frame_seconds)} frames), too short for "
        f"{wanted}",
        "change data.gap_seconds or remove it",
    )
    return SkippedClip(clip.name, str(error))


def _nothing_usable(
    root: str, readable: Sequence[Clip], skipped: Sequence[SkippedClip], wanted: str
) -> MidwayError:
    if not readable and not skipped:
        return MidwayError(
            f"{root}: contains no clip; prepare it again, and see which clips it skips"
        )
    if not readable:
        return MidwayError(
            f"{root}: no usable clip among {len(skipped)}; the first: {skipped[0].reason}"
        )
    longest = max(readable, key=lambda clip: clip.frame_seconds[-1])
    return MidwayError(
        f"{root}: no clip contains {wanted}, the longest, {longest.name}, lasts "
        f"{longest.frame_seconds[-1]:.2f} s; change data.gap_seconds or use longer clips"
    )
