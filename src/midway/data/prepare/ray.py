"""Tasks of a preparation on a Ray cluster, in the shape of `Workers`."""

import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from midway.data.prepare.decode import ClipSource
from midway.data.prepare.writer import ClipWriter, Written
from midway.data.workers.pool import Reading
from midway.errors import MidwayError

if TYPE_CHECKING:
    from ray import ObjectRef

Task = tuple[ClipSource, ...]


class RayWorkers:
    """Does tasks on the cluster that this process has joined, or joins the one that runs; close it.

    A clip that crashes or hangs a process of the cluster is found by doing the clips of its task
    one by one. Every machine needs Midway with its extra `store`, the source and the destination.

    Args:
        writer: Does one task.
        timeout_seconds: How long a clip may give no new frame before it counts as hanging.

    Raises:
        MidwayError: Ray is not installed, or no cluster runs.
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
                    "--ray: no Ray cluster runs here; start one with `ray start --head`, set "
                    "RAY_ADDRESS, or leave --ray out"
                ) from error
        # A machine may be taken away: once more, elsewhere.
        self._write = ray.remote(num_cpus=1, max_retries=1)(_write)
        self._writer, self._timeout_seconds = writer, timeout_seconds
        self._flying: deque[tuple[Task, ObjectRef[Any]]] = deque()

    def close(self) -> None:
        """Call off what is under way, and leave the cluster if it was joined."""
        for _, flying in self._flying:
            self._ray.cancel(flying, force=True)
        if self._joined:
            self._ray.shutdown()

    @property
    def num_cpus(self) -> int:
        """Cores of the cluster now; it may grow with its tasks."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def map(self, tasks: Iterable[Task]) -> Iterator[Written]:
        """Results in the order of the tasks, at most two tasks a core being under way.

        Raises:
            MidwayError: A machine cannot write, or the cluster has gone.
        """
        for task in tasks:
            self._flying.append((task, self._start(task)))
            if len(self._flying) > 2 * self.num_cpus:
                yield from self._next()
        while self._flying:
            yield from self._next()

    def _start(self, task: Task) -> "ObjectRef[Any]":
        return self._write.remote(self._writer, task, self._timeout_seconds)

    def _next(self) -> Iterator[Written]:
        task, flying = self._flying[0]
        yield from self._finished(task, flying)
        self._flying.popleft()

    def _finished(self, task: Task, flying: "ObjectRef[Any]") -> Iterator[Written]:
        exceptions = self._exceptions
        try:
            yield self._ray.get(flying)
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
                f"--ray: the cluster failed ({type(error).__name__}); run the same command to go on"
            ) from error


def _write(writer: ClipWriter, task: Sequence[ClipSource], timeout_seconds: float) -> Written:
    """What a process of the cluster does."""

    def announce(clip: str) -> None:
        # Nobody handles it, so it ends the process, even in the middle of a decoder's code.
        signal.setitimer(signal.ITIMER_REAL, timeout_seconds)

    try:
        return writer(tuple(task), Reading({}, announce))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
