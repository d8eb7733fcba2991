"""Batches, and their prefetching in worker processes and a background thread."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import fields, replace
from typing import Any, Self, TypeVar, cast

import torch
from torch import Tensor

from midway.data.workers.pool import Work, Workers

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")
BatchT = TypeVar("BatchT")

BATCHES_AHEAD = 2
"""Batches that the background thread prefetches."""
READ_TIMEOUT_SECONDS = 300.0
"""Timeout of a task in a worker; reading one file over a slow network takes seconds."""


class Batch:
    """Base class of the inputs of one step; subclasses are dataclasses.

    Its methods apply to tensors in the fields, also inside tuples and dicts. Other values are kept.
    """

    def to(self, device: torch.device) -> Self:
        """Return a copy on `device`; copies from page-locked memory are asynchronous."""
        return self._changed(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """Return a copy in page-locked memory."""
        return self._changed(Tensor.pin_memory)

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Self:
        own: Any = self  # a dataclass
        values = {field.name: getattr(own, field.name) for field in fields(own)}
        return replace(own, **{name: _mapped(value, change) for name, value in values.items()})


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if type(value) is tuple:
        return tuple(_mapped(each, change) for each in value)
    if type(value) is dict:
        return {name: _mapped(each, change) for name, each in value.items()}
    return value


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
        work: Function that performs one task in a worker; see `Workers`.
        tasks: Tasks in order; consumed as workers become free.
        build: Function that collates results into batches, in a thread of this process.
        num_workers: Number of worker processes; 0 reads in this process, without prefetching.
        timeout_seconds: Timeout of a task.

    Yields:
        Batches in the order of the tasks.

    Raises:
        MidwayError: `work` raised it, or workers die before they begin to read.
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
    """Yield the same items, computed in a thread up to `ahead` items in advance.

    An exception of `items` is raised at its position in the sequence. When this generator is
    closed, the thread ends after its current item, and the caller does not wait for it.
    """
    executor = ThreadPoolExecutor(1, thread_name_prefix="midway-batches")
    try:
        waiting = deque(executor.submit(next, items, cast("T", _END)) for _ in range(ahead))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(executor.submit(next, items, cast("T", _END)))
            yield item
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
