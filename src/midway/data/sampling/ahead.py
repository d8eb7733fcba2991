"""Batches that processes read ahead of training, in order."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import TypeVar

import torch

from midway.data.background import in_background
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
