"""Execution of preparation tasks on a Ray cluster, with the interface of `Workers`."""

import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from midway.data.prepare.decode import ClipSource
from midway.data.prepare.writer import ClipWriter, WriteResult
from midway.data.workers.pool import Reading
from midway.errors import MidwayError

if TYPE_CHECKING:
    from ray import ObjectRef

Task = tuple[ClipSource, ...]


class RayWorkers:
    """Worker pool on a Ray cluster; close it after use.

    It uses the cluster that this process has joined, or joins the running one. If a process crashes
    or hangs, the clips of its task are repeated one by one to find the bad one. Every machine needs
    Midway with its extra `store`, and access to the source and the destination.

    Args:
        writer: Function that executes one task.
        timeout_seconds: Time without a new frame after which a clip counts as hanging.

    Raises:
        MidwayError: Ray is not installed, or no cluster is running.
    """

    def __init__(self, writer: ClipWriter, *, timeout_seconds: float) -> None:
        try:
            import ray
            import ray.exceptions
        except ImportError as error:
            raise MidwayError(
                "--ray: Ray is not installed; run `pip install 'midway-network[ray]'`"
            ) from error
        self._ray, self._exceptions = ray, ray.exceptions
        self._joined = not ray.is_initialized()
        if self._joined:
            try:
                ray.init(address="auto", log_to_driver=False)
            except ConnectionError as error:
                raise MidwayError(
                    "--ray: no Ray cluster is running; start one with `ray start --head`, set "
                    "RAY_ADDRESS, or omit --ray"
                ) from error
        # Retry once, as a machine may be preempted.
        self._write = ray.remote(num_cpus=1, max_retries=1)(_write)
        self._writer, self._timeout_seconds = writer, timeout_seconds
        self._in_flight: deque[tuple[Task, ObjectRef[Any]]] = deque()

    def close(self) -> None:
        """Cancel running tasks, and leave the cluster if this object joined it."""
        for _, reference in self._in_flight:
            self._ray.cancel(reference, force=True)
        if self._joined:
            self._ray.shutdown()

    @property
    def num_cpus(self) -> int:
        """Current number of cores of the cluster, which may grow with the load."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def map(self, tasks: Iterable[Task]) -> Iterator[WriteResult]:
        """Yield results in the order of the tasks; at most two tasks per core are in flight.

        Raises:
            MidwayError: A machine cannot write, or the cluster failed.
        """
        for task in tasks:
            self._in_flight.append((task, self._start(task)))
            if len(self._in_flight) > 2 * self.num_cpus:
                yield from self._next()
        while self._in_flight:
            yield from self._next()

    def _start(self, task: Task) -> "ObjectRef[Any]":
        return self._write.remote(self._writer, task, self._timeout_seconds)

    def _next(self) -> Iterator[WriteResult]:
        task, reference = self._in_flight[0]
        yield from self._finished(task, reference)
        self._in_flight.popleft()

    def _finished(self, task: Task, reference: "ObjectRef[Any]") -> Iterator[WriteResult]:
        exceptions = self._exceptions
        try:
            yield self._ray.get(reference)
        except exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, MidwayError) else error) from error
        except (exceptions.WorkerCrashedError, exceptions.OutOfMemoryError) as error:
            first, *others = task
            if others:
                for source in task:
                    yield from self._finished((source,), self._start((source,)))
                return
            reason = (
                f"ends the process that reads it ({type(error).__name__}), or takes more than "
                f"{self._timeout_seconds:g} s to read"
            )
            yield self._writer(task, Reading({first.name: reason}, lambda clip: None))
        except exceptions.RayError as error:
            raise MidwayError(
                f"--ray: the cluster failed ({type(error).__name__}); run the same command again"
            ) from error


def _write(writer: ClipWriter, task: Sequence[ClipSource], timeout_seconds: float) -> WriteResult:
    """Execute one task in a process of the cluster."""

    def announce(clip: str) -> None:
        # Unhandled, so that it ends the process even inside a decoder's C code.
        signal.setitimer(signal.ITIMER_REAL, timeout_seconds)

    try:
        return writer(tuple(task), Reading({}, announce))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
