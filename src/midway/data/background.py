"""Items made ahead of time, in a thread."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

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
