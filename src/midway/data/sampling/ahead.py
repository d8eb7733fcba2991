"""Batches that processes read ahead of training, in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar, cast

import torch

from midway.data.sampling.batch import Batch
from midway.data.workers.pool import Work, Workers

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")
BatchT = TypeVar("BatchT")

BATCHES_AHEAD = 2
READ_TIMEOUT_SECONDS = 300.0
"""Time for one labelled file; a slow network takes seconds."""


def read_ahead(
    work: Work[TaskT, ResultT],
    tasks: Iterable[TaskT],
    build: Callable[[Iterator[ResultT]], Iterator[BatchT]],
    *,
    num_workers: int,
    timeout_seconds: float = READ_TIMEOUT_SECONDS,
) -> Generator[BatchT]:
    """Yield batches built from the results of tasks, in page-locked memory if there is a GPU.

    Args:
        work: Does one task in a worker; see `Workers`.
        tasks: In order; taken as workers become free.
        build: Makes batches of the results, in a thread of this process.
        num_workers: Reading processes; 0 reads in this one, and nothing ahead.
        timeout_seconds: Time that one file may take.

    Raises:
        MidwayError: The work raised it, or workers die before they begin to read.
    """
    workers = Workers(work, num_workers=num_workers, timeout_seconds=timeout_seconds)
    batches = map(_page_locked, build(workers.map(tasks)))
    if num_workers:
        batches = in_background(batches, ahead=BATCHES_AHEAD)
    with closing(workers):
        yield from batches


def _page_locked(batch: BatchT) -> BatchT:
    if isinstance(batch, Batch) and torch.cuda.is_available():
        return batch.pin_memory()
    return batch


T = TypeVar("T")

_END = object()


def in_background(items: Iterator[T], *, ahead: int) -> Generator[T]:
    """The same items, made in a thread that is up to `ahead` of them in advance.

    What the items raise is raised here in its turn. When this generator is closed, the thread
    ends with the item that it is at, and is not waited for.
    """
    executor = ThreadPoolExecutor(1, thread_name_prefix="midway-batches")
    try:
        waiting = deque(executor.submit(next, items, cast("T", _END)) for _ in range(ahead))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(executor.submit(next, items, cast("T", _END)))
            yield item
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
