"""Preparation of a frame store from a folder of clips, by many processes or machines.

Tasks write files that are invisible until this process commits them, in the order of the clips. So
an interrupted store contains the first clips of the folder, and a later run resumes after them and
adds the same rows in the same order.
"""

import logging
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from midway.atomic import naming
from midway.config import json_text
from midway.data.clips.frame_folder import group_sequences
from midway.data.clips.frame_numbers import natural_key
from midway.data.clips.lerobot import has_episodes
from midway.data.clips.listing import list_kinds, tell_passed_over
from midway.data.clips.roots import files_of
from midway.data.clips.skipped import SkippedClip
from midway.data.clips.store import StoreConfig, is_store, read_store
from midway.data.files import absolute, is_url
from midway.data.prepare.commits import StoreCommits
from midway.data.prepare.decode import ClipSource, VideoSource
from midway.data.prepare.ray import RayWorkers
from midway.data.prepare.writer import ClipWriter, WriteResult
from midway.data.workers.pool import Workers
from midway.errors import MidwayError

COMMIT_SECONDS = 60.0
"""Time between commits; a killed run loses at most this, and its running tasks."""
TASK_BYTES = 256 * 2**20
"""Source bytes per task of several clips."""
TIMEOUT_SECONDS = 120.0
"""Time without a new frame after which a clip counts as hanging."""
_log = logging.getLogger(__name__)
_TASKS_PER_JOB = 4
"""Smallest number of tasks per job; with fewer, a long last task leaves the other jobs idle."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a preparation."""

    done: int
    """Number of clips that are in the store or were skipped."""
    total: int
    """Number of clips in the source."""
    frames: int
    """Number of frames that this run has written."""
    skipped: int
    """Number of clips that this run has skipped."""


@dataclass(frozen=True, kw_only=True)
class PrepareSummary:
    """Contents of a store after a preparation, and the share of this run."""

    destination: str
    """Path or URL of the store."""
    clips: int
    """Number of clips in the store."""
    frames: int
    """Number of frames in the store."""
    bytes: int
    """Size of the files of the store."""
    new_clips: int
    """Number of clips that this run has written."""
    skipped: tuple[SkippedClip, ...]
    """Clips of the source that this run could not read."""
    skipped_list: str | None
    """Path of the list of skipped clips; None if there are none."""
    interrupted: bool
    """If True, the run was interrupted before its end."""


@dataclass(frozen=True)
class SizedSource:
    """A clip to decode, and its size in bytes."""

    source: ClipSource
    size: int


def find_sources(root: str, *, source_fps: float) -> list[SizedSource]:
    """Return every video and frame sequence below a folder, in natural order of name.

    No file is opened, so some may turn out to be unreadable.

    Args:
        root: Path or URL of a folder with videos, frame folders or both, or of a single video, list
            of videos or tar file.
        source_fps: Frames per second that the numbers of frame files count.

    Raises:
        MidwayError: There is no clip, or a folder cannot be read.
    """
    if is_store(root):
        raise MidwayError(f"{root}: is already a frame store; give its source videos")
    found_files = files_of(root)
    files = found_files.files
    sizes = {file.location: file.size for file in files}
    listing = list_kinds(files)
    tell_passed_over(root, listing)
    if has_episodes(files) or found_files.stretches:
        _log.warning(
            "%s: a frame store contains whole videos, not the episodes of LeRobot videos or the "
            "parts in a list; train on %s itself",
            *(root, root),
        )
    found = [
        SizedSource(VideoSource(file.name, file.location), file.size) for file in listing.videos
    ]
    found += [
        SizedSource(sequence, sum(sizes[frame] for frame in sequence.frames))
        for sequence in group_sequences(listing.images, fps=source_fps)
    ]
    if not found:
        raise MidwayError(
            f"{root}: contains no video and no image; give a folder with videos or images"
        )
    return sorted(found, key=lambda each: natural_key(each.source.name))


def prepare(
    source: str,
    destination: str,
    config: StoreConfig,
    *,
    jobs: int = 1,
    on_ray: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
    commit_seconds: float = COMMIT_SECONDS,
    task_bytes: int = TASK_BYTES,
) -> PrepareSummary:
    """Write all clips below `source` into a new frame store, or resume an interrupted one.

    Clips with a name that is in the store are not read again. A clip that cannot be read to its end
    is skipped, and tried again by the next run. A `KeyboardInterrupt` keeps all complete clips.

    Args:
        source: Path or URL, as for `find_sources`.
        destination: New or existing store: a path or URL that Lance supports, ending in ``.lance``.
        config: Settings of the store.
        jobs: Number of decoding processes; 0 decodes in this one, which a damaged video may crash.
        on_ray: If True, decode on the Ray cluster that this process has joined or can join.
        report: Called after each task.
        commit_seconds: Time between two commits.
        task_bytes: Source bytes per task of several clips.

    Raises:
        MidwayError: The source has no clip, or the destination is not a store, has other settings,
            or is written to by another process.
    """
    if on_ray:  # the processes of the cluster have other working directories
        source, destination = absolute(source), absolute(destination)
    found = find_sources(source, source_fps=config.source_fps)
    store = StoreCommits(destination, config)
    present = {clip.name for clip in read_store(destination)}
    left = [each for each in found if each.source.name not in present]
    skips = _SkipList(destination)
    done, frames, interrupted = len(found) - len(left), 0, False
    try:
        with closing(_written(destination, config, left, jobs, on_ray, task_bytes)) as results:
            for written in results:
                store.add(written.fragments)
                skips.add(written.skipped)
                done, frames = done + written.num_sources, frames + written.frames
                report(
                    Progress(done=done, total=len(found), frames=frames, skipped=len(skips.clips))
                )
                if store.pending_seconds > commit_seconds:
                    store.commit()
    except KeyboardInterrupt:
        interrupted = True
    store.commit()
    if not interrupted:
        store.clean()
    return _summary(store, skips, len(present), interrupted)


def _written(
    destination: str,
    config: StoreConfig,
    left: list[SizedSource],
    jobs: int,
    on_ray: bool,
    task_bytes: int,
) -> Generator[WriteResult]:
    """Yield the results of all tasks, in the order of the clips."""
    if on_ray:
        writer = ClipWriter(destination=destination, config=config)
        with closing(RayWorkers(writer, timeout_seconds=TIMEOUT_SECONDS)) as cluster:
            yield from cluster.map(_tasks(left, task_bytes, cluster.num_cpus))
        return
    # With fewer clips than jobs, decoder threads use the remaining cores.
    threads = max(1, jobs // max(1, len(left)))
    writer = ClipWriter(destination=destination, config=config, threads=threads)
    tasks = _tasks(left, task_bytes, jobs)
    workers = Workers(writer, num_workers=min(jobs, len(tasks)), timeout_seconds=TIMEOUT_SECONDS)
    with closing(workers):
        yield from workers.map(tasks)


def _tasks(left: list[SizedSource], task_bytes: int, jobs: int) -> list[tuple[ClipSource, ...]]:
    """Group neighbouring clips, so that the store does not consist of many small files."""
    total = sum(each.size for each in left)
    enough = min(task_bytes, total // (_TASKS_PER_JOB * max(1, jobs)))
    tasks: list[tuple[ClipSource, ...]] = []
    group: list[ClipSource] = []
    size = 0
    for each in left:
        group.append(each.source)
        size += each.size
        if size >= enough:
            tasks.append(tuple(group))
            group, size = [], 0
    return [*tasks, tuple(group)] if group else tasks


class _SkipList:
    """List of the clips skipped by this run, also written to a file beside the store.

    For a store with a URL the file is in the working directory.
    """

    def __init__(self, destination: str) -> None:
        name = f"{destination.rstrip('/')}.skipped.jsonl"
        self.path = Path(PurePosixPath(name).name if is_url(destination) else name)
        self.clips: list[SkippedClip] = []
        self.path.unlink(missing_ok=True)

    def add(self, skipped: Iterable[SkippedClip]) -> None:
        for clip in skipped:
            self.clips.append(clip)
            with naming(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(json_text({"clip": clip.clip, "reason": clip.reason}) + "\n")


def _summary(
    store: StoreCommits, skips: _SkipList, clips_before: int, interrupted: bool
) -> PrepareSummary:
    clips = len(read_store(store.location))
    return PrepareSummary(
        destination=store.location,
        clips=clips,
        frames=store.frames,
        bytes=store.num_bytes,
        new_clips=clips - clips_before,
        skipped=tuple(skips.clips),
        skipped_list=str(skips.path) if skips.clips else None,
        interrupted=interrupted,
    )
