"""Reading of headers and blank endings of videos, and of frame stores, in worker processes.

A header can crash FFmpeg, keep it busy for hours or make it allocate gigabytes; a damaged store can
crash Lance. In a worker this costs one file, which is then listed as unusable.
"""

import os
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from multiprocessing import parent_process
from pathlib import Path
from typing import Protocol, TypeVar

from midway.data.clip import BadClipError
from midway.data.clips.index import Record, read_header
from midway.data.clips.store import StoreClip, read_store
from midway.data.files import FoundFile, is_url
from midway.data.video.blank_tail import blank_tail_start
from midway.data.video.file import VideoClip
from midway.data.workers.pool import Reading, Workers
from midway.errors import MidwayError

MAX_BYTES = 2 * 2**30
"""Address space that a worker may take beyond that of its start; headers need a few megabytes."""
_FILES_PER_TASK = 64
"""Local files of a task: reading them takes about as long as the start of a worker."""
_URLS_PER_TASK = 4
Tail = float | None | BadClipError
"""Start of the blank ending of a video in seconds, None without one, or why it cannot be read."""


class Located(Protocol):
    """Interface of objects with a path or URL."""

    @property
    def location(self) -> str:
        """Path or URL."""
        ...


ItemT = TypeVar("ItemT", bound=Located)
ResultT = TypeVar("ResultT")


def read_headers(
    files: Sequence[FoundFile], *, num_workers: int, timeout_seconds: float
) -> Iterator[list[Record]]:
    """Yield the records of videos in order, in lists; an error becomes part of a record.

    Args:
        files: Videos.
        num_workers: Number of worker processes; 0 reads in this process, without protection.
        timeout_seconds: Time after which a file counts as unusable.
    """
    start = 0
    for results in read_each(
        read_header, files, num_workers=num_workers, timeout_seconds=timeout_seconds
    ):
        group = files[start : start + len(results)]
        yield [
            Record.failed(file, result) if isinstance(result, BadClipError) else result
            for file, result in zip(group, results, strict=True)
        ]
        start += len(results)


def read_blank_tails(
    clips: Sequence[VideoClip], *, num_workers: int, timeout_seconds: float
) -> list[Tail]:
    """Return for each clip the start of its blank ending, see `blank_tail_start`, or an error.

    Args:
        clips: Videos.
        num_workers: Number of worker processes; 0 reads in this process, without protection.
        timeout_seconds: Time after which a file counts as unusable.
    """
    found = read_each(_blank_tail, clips, num_workers=num_workers, timeout_seconds=timeout_seconds)
    return [start for starts in found for start in starts]


def read_store_apart(location: str, *, num_workers: int, timeout_seconds: float) -> list[StoreClip]:
    """Return the clips of a store (`read_store`), which a worker process opens.

    Args:
        location: Path or URL of the store.
        num_workers: Number of worker processes, of which one reads; 0 reads in this process,
            without protection.
        timeout_seconds: Time without a row after which reading counts as hanging.

    Raises:
        MidwayError: The location is not a store of this version, or the store is damaged.
    """
    workers = Workers(_read_store, num_workers=min(num_workers, 1), timeout_seconds=timeout_seconds)
    with closing(workers):
        (clips,) = workers.map([location])
    return clips


def read_each(
    read: Callable[[ItemT, Callable[[], None]], ResultT],
    items: Sequence[ItemT],
    *,
    num_workers: int,
    timeout_seconds: float,
) -> Iterator[list[ResultT | BadClipError]]:
    """Yield the results of reading items, in order and in lists; errors are returned.

    Args:
        read: Function of an item, and of a function that restarts the timeout; picklable.
        items: Items to read.
        num_workers: Number of worker processes; 0 reads in this process, without protection.
        timeout_seconds: Time after which reading an item counts as hanging.
    """
    size = _URLS_PER_TASK if any(is_url(item.location) for item in items) else _FILES_PER_TASK
    groups = [items[start : start + size] for start in range(0, len(items), size)]
    workers = Workers(
        partial(_read_group, read),
        num_workers=min(num_workers, len(groups)),
        timeout_seconds=timeout_seconds,
    )
    with closing(workers):
        yield from workers.map(groups)


def _read_group(
    read: Callable[[ItemT, Callable[[], None]], ResultT], items: Sequence[ItemT], reading: Reading
) -> list[ResultT | BadClipError]:
    if parent_process() is not None:
        _limit_memory()
    return [_read(read, item, reading) for item in items]


def _read(
    read: Callable[[ItemT, Callable[[], None]], ResultT], item: ItemT, reading: Reading
) -> ResultT | BadClipError:
    location = item.location
    if reason := reading.lost.get(location):
        return BadClipError(location, reason, "re-encode it or remove it")
    reading(location)
    try:
        return read(item, partial(reading, location))
    except BadClipError as error:
        return error
    except MemoryError:
        return BadClipError(
            location,
            f"takes more than {MAX_BYTES // 2**30} GiB to open",
            "re-encode it or remove it",
        )


def _blank_tail(clip: VideoClip, announce: Callable[[], None]) -> float | None:
    return blank_tail_start(clip.location, clip.duration_seconds)


def _read_store(location: str, reading: Reading) -> list[StoreClip]:
    if reason := reading.lost.get(location):
        raise MidwayError(f"{location}: {reason}; copy or prepare the store again")
    reading(location)
    if parent_process() is None:
        return read_store(location)
    _limit_memory()
    with _without_stderr():
        return read_store(location, partial(reading, location))


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Discard the standard error, where Lance prints a stack trace even for an error it returns."""
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)


def _limit_memory() -> None:
    """Limit the memory of this worker, once; without effect on systems other than Linux."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    status = Path("/proc/self/status")
    if soft != resource.RLIM_INFINITY or not status.exists():
        return
    used = next(
        line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmSize")
    )
    with suppress(ValueError):  # a lower hard limit is in force
        resource.setrlimit(resource.RLIMIT_AS, (1024 * int(used) + MAX_BYTES, hard))
