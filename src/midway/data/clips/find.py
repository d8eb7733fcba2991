"""The clips below a root: every video and every sequence of frames that holds a sample."""

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
    records_that_hold,
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
    """Clips that hold a sample, in natural order of name, and those that do not."""

    clips: tuple[Clip, ...]
    skipped: tuple[SkippedClip, ...]

    @property
    def total(self) -> int:
        """Number of both."""
        return len(self.clips) + len(self.skipped)


def find_clips(
    root: str,
    *,
    fps: float,
    gap_seconds: Gap,
    num_frames: int = 2,
    cut_blank_tail: bool = False,
) -> ClipList:
    """Look through a folder and all below it, or at a single video file.

    What an index says of a video is believed as long as the file has not changed; of the others
    the header is read. No frame is decoded. Names that start with a dot are passed over, and
    links to folders are not followed.

    Args:
        root: Path or URL of a folder of videos, of folders of frames, or of both; of one video;
            of an index; of a frame store.
        fps: Rate at which the numbers of frame files count.
        gap_seconds: Smallest and largest time between neighbouring frames of a sample.
        num_frames: Frames of a sample.
        cut_blank_tail: Whether to look for a blank stretch at the end of every video, and leave it
            out; this decodes a few frames of each.

    Raises:
        MidwayError: Nothing below `root` holds a sample, or a folder cannot be read.
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
            f"{root}: holds {'files, but' if files else 'no files:'} no video and no image; "
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
    """Records of all videos; headers are read of those that are new or have changed."""
    records = records_that_hold(known, videos)
    new = [file for file in videos if file.name not in records]
    if len(new) > _MANY_FILES:
        _log.warning(
            "%s: reading the headers of %d videos; `midway prepare %s --index-only` writes %s, "
            "with which this takes seconds",
            *(root, len(new), root, INDEX_NAME),
        )
    with ThreadPoolExecutor(_PROBE_THREADS) as pool:
        records |= {record.name: record for record in pool.map(read_header, new)}
    return [records[file.name] for file in videos]


def _without_tails(
    clips: Sequence[Clip], skipped: Sequence[SkippedClip]
) -> tuple[list[Clip], list[SkippedClip]]:
    """The clips, those videos that end blank cut there; it is told of each."""
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
        raise BadClipError(clip.location, "shows nothing from beginning to end", "remove it")
    _log.warning(
        "%s: blank from %.2f s to its end at %.2f s; that part is left out",
        *(clip.location, blank_seconds, clip.duration_seconds),
    )
    return replace(clip, duration_seconds=blank_seconds - 1 / clip.fps)


def _wanted(num_frames: int, gap_seconds: Gap) -> str:
    return f"{num_frames} frames {gap_seconds[0]:g} to {gap_seconds[1]:g} s apart"


def _too_short(clip: Clip, wanted: str) -> SkippedClip:
    error = BadClipError(
        clip.location,
        f"lasts {clip.frame_seconds[-1]:.2f} s ({len(clip.frame_seconds)} frames) and does not "
        f"hold {wanted}",
        "change data.gap_seconds or remove it",
    )
    return SkippedClip(clip.name, str(error))


def _nothing_usable(
    root: str, readable: Sequence[Clip], skipped: Sequence[SkippedClip], wanted: str
) -> MidwayError:
    if not readable:
        return MidwayError(
            f"{root}: none of its {len(skipped)} clips can be used; the first: {skipped[0].reason}"
        )
    longest = max(readable, key=lambda clip: clip.frame_seconds[-1])
    return MidwayError(
        f"{root}: no clip holds {wanted}, the longest, {longest.name}, lasts "
        f"{longest.frame_seconds[-1]:.2f} s; change data.gap_seconds or give longer clips"
    )
