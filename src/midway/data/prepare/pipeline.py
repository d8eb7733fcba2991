"""From a folder of videos and frames to a frame store, over many processes or machines.

Tasks write files at the store that nobody sees; this process alone commits them, always in the
order of the clips. So a store holds the first so many of its clips, and one that was interrupted
goes on where it ended, to the same rows in the same order.
"""

import json
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from midway.data.clips.frame_folder import group_sequences, natural_key
from midway.data.clips.index import is_video
from midway.data.clips.skipped import SkippedClip
from midway.data.clips.store import StoreConfig, is_store, read_store
from midway.data.files import absolute, find_files, is_url
from midway.data.prepare.commits import StoreCommits
from midway.data.prepare.decode import ClipSource, VideoSource
from midway.data.prepare.ray import RayWorkers
from midway.data.prepare.writer import ClipWriter, Written
from midway.data.workers.pool import Workers
from midway.errors import MidwayError

COMMIT_SECONDS = 60.0
"""Time between commits: what a kill loses, besides the tasks in hand."""
TASK_BYTES = 256 * 2**20
"""Source bytes that make a task of several clips."""
TIMEOUT_SECONDS = 120.0
"""How long a clip may give no new frame before it counts as hanging."""
_TASKS_PER_JOB = 4
"""At least as many, or one long task at the end leaves the other jobs idle."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a preparation is."""

    done: int
    """Clips of the source that are in the store or were left out."""
    total: int
    frames: int
    """Written by this run."""
    skipped: int


@dataclass(frozen=True, kw_only=True)
class PrepareSummary:
    """What a store holds after a preparation, and what this run did."""

    destination: str
    clips: int
    """In the store."""
    frames: int
    """In the store."""
    bytes: int
    """Of the files of the store."""
    new_clips: int
    """Written by this run."""
    skipped: tuple[SkippedClip, ...]
    """Clips of the source that this run could not read."""
    skipped_list: str | None
    """File that lists them all; None without any."""
    interrupted: bool


@dataclass(frozen=True)
class SizedSource:
    """A clip to be read through, and its bytes."""

    source: ClipSource
    size: int


def find_sources(root: str, *, source_fps: float) -> list[SizedSource]:
    """Every video and every sequence of frames below a folder, in natural order of name.

    Nothing is opened, so a file need not be what its name says.

    Args:
        root: Path or URL of a folder of videos, of folders of frames, or of both; or of a video.
        source_fps: Rate at which the numbers of frame files count.

    Raises:
        MidwayError: There is none, or a folder cannot be read.
    """
    if is_store(root):
        raise MidwayError(f"{root}: is a frame store already; give the videos it was made of")
    files = find_files(root)
    sizes = {file.location: file.size for file in files}
    found = [
        SizedSource(VideoSource(file.name, file.location), file.size)
        for file in files
        if is_video(file)
    ]
    found += [
        SizedSource(sequence, sum(sizes[frame] for frame in sequence.frames))
        for sequence in group_sequences(files, fps=source_fps)
    ]
    if not found:
        raise MidwayError(f"{root}: holds no video and no image; give a folder that does")
    return sorted(found, key=lambda each: natural_key(each.source.name))


def prepare(
    source: str,
    destination: str,
    config: StoreConfig,
    *,
    jobs: int = 1,
    on_ray: bool = False,
    tell: Callable[[Progress], None] = lambda progress: None,
    commit_seconds: float = COMMIT_SECONDS,
    task_bytes: int = TASK_BYTES,
) -> PrepareSummary:
    """Write all clips below `source` into a frame store, or go on with one begun before.

    A clip whose name is in the store is not looked at again. One that cannot be read to its end is
    left out, and tried again the next time. A `KeyboardInterrupt` keeps what is complete.

    Args:
        source: Path or URL, as for `find_sources`.
        destination: New or begun store: path or URL that Lance knows, ending in ``.lance``.
        config: Which frames, and how.
        jobs: Processes that decode; 0 decodes in this one, which a broken video may crash.
        on_ray: Decode on the Ray cluster that this process has joined or can join.
        tell: Called whenever a task is done.
        commit_seconds: Time between two commits.
        task_bytes: Bytes of the source that make a task of several clips.

    Raises:
        MidwayError: There is nothing to prepare, or the destination is no store, was begun with
            other settings, or is written to by another process.
    """
    if on_ray:  # its processes work elsewhere
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
                tell(Progress(done=done, total=len(found), frames=frames, skipped=len(skips.clips)))
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
) -> Generator[Written]:
    """Results of all tasks, in the order of the clips."""
    if on_ray:
        writer = ClipWriter(destination=destination, config=config)
        with closing(RayWorkers(writer, timeout_seconds=TIMEOUT_SECONDS)) as cluster:
            yield from cluster.map(_tasks(left, task_bytes, cluster.num_cpus))
        return
    # Few long clips still keep the cores of all jobs busy.
    threads = max(1, jobs // max(1, len(left)))
    writer = ClipWriter(destination=destination, config=config, threads=threads)
    tasks = _tasks(left, task_bytes, jobs)
    workers = Workers(writer, num_workers=min(jobs, len(tasks)), timeout_seconds=TIMEOUT_SECONDS)
    with closing(workers):
        yield from workers.map(tasks)


def _tasks(left: list[SizedSource], task_bytes: int, jobs: int) -> list[tuple[ClipSource, ...]]:
    """Neighbouring clips together, so that files of a store are neither many nor small."""
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
    """Clips left out by this run, each also a line of a file beside the store.

    The file of a store with a URL is in the current folder.
    """

    def __init__(self, destination: str) -> None:
        name = f"{destination.rstrip('/')}.skipped.jsonl"
        self.path = Path(PurePosixPath(name).name if is_url(destination) else name)
        self.clips: list[SkippedClip] = []
        self.path.unlink(missing_ok=True)

    def add(self, skipped: Iterable[SkippedClip]) -> None:
        for clip in skipped:
            self.clips.append(clip)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(clip)) + "\n")


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
