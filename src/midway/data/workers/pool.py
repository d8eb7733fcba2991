"""Pool of processes that do tasks in order and survive decoders that crash or hang.

Each worker is a fresh process with a pipe to this one and memory shared with it. It announces the
file that it is about to read. If it dies on that file, or an alarm ends it after a time-out,
another worker takes its place and the task is repeated without the file. A file on which SIGKILL
ends a worker is read once more: decoders do not send it, but users do, and the system when memory
runs short, and the samples must not depend on either.

The arrays of a result travel through the shared memory and are copied out of it here.
"""

import atexit
import ctypes
import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar

from midway.data.workers.shared_memory import Packed, SharedMemory
from midway.errors import MidwayError

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")

SLOTS = 2
"""Tasks queued at a worker: the current one and the next, so that it never waits."""
SLOT_BYTES = 64 * 2**20
"""Shared memory for the arrays of one result; pages never written to take no memory."""
MAX_SILENT_DEATHS = 3
"""Workers in a row that may die before they announce a clip."""
TASKS_PER_TRIM = 100
"""Interval of `malloc_trim`: glibc keeps what decoders free, so workers would grow slowly."""
_GROUP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Reading:
    """Lets a task report the file it is reading and skip quarantined files.

    Args:
        lost: Files that ended a worker before, each with a verb phrase that says how.
        announce: Called with the name of each file.
    """

    def __init__(self, lost: Mapping[str, str], announce: Callable[[str], None]) -> None:
        self.lost = lost
        self._announce = announce

    def __call__(self, clip: str) -> None:
        """Report that `clip` is read from now on; each call restarts its time-out."""
        self._announce(clip)

    def require(self, location: str) -> None:
        """Announce a file that may not be skipped.

        Raises:
            MidwayError: It ended a worker before.
        """
        if location in self.lost:
            raise MidwayError(f"{location}: {self.lost[location]}; replace the file")
        self(location)


Work = Callable[[TaskT, Reading], ResultT]


class Workers(Generic[TaskT, ResultT]):
    """Pool of processes that do tasks until it is closed.

    Args:
        work: Does one task; it must pickle, as must tasks and results. A `MidwayError` that it
            raises is raised here, in its turn.
        num_workers: Processes; 0 does the work in this one, without protection.
        timeout_seconds: Time that a worker may take for a file before it counts as hanging.
    """

    def __init__(
        self, work: Work[TaskT, ResultT], *, num_workers: int, timeout_seconds: float
    ) -> None:
        self.lost: dict[str, str] = {}
        """Files that ended a worker, each with a verb phrase that says how."""
        self._work = work
        self._timeout_seconds = timeout_seconds
        self._silent_deaths = 0
        self._killed: set[str] = set()
        self._closed = False
        self._workers: list[_Worker] = []
        # Without this, interpreter exit would hang joining workers that ignore SIGTERM.
        atexit.register(self.close)
        for _ in range(num_workers):
            self._workers.append(self._start())

    def close(self) -> None:
        """Kill the processes; a `map` in another thread ends as well."""
        self._closed = True
        atexit.unregister(self.close)
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()

    def map(self, tasks: Iterable[TaskT]) -> Iterator[ResultT]:
        """Yield results in the order of the tasks, which are taken from the iterable as needed.

        The pool cannot be used again after an error or an iteration that was not finished.

        Raises:
            MidwayError: The work raised it, or workers die before they begin to read.
            RuntimeError: The work failed in another way; its traceback is on standard error.
        """
        if not self._workers:
            for task in tasks:
                yield self._work(task, Reading(self.lost, lambda clip: None))
            return
        numbered = enumerate(tasks)
        results: dict[int, ResultT | MidwayError] = {}
        given, number, exhausted = 0, 0, False
        # Bounds what waits behind a slow task; below it, some worker has a free slot.
        most_ahead = SLOTS * len(self._workers)
        while not self._closed:
            while not exhausted and given - number < most_ahead:
                job = next(numbered, None)
                exhausted = job is None
                if job is not None:
                    max(self._workers, key=lambda worker: len(worker.free)).give(job, self.lost)
                    given += 1
            if number in results:
                result = results.pop(number)
                if isinstance(result, MidwayError):
                    raise result
                yield result
                number += 1
            elif any(worker.jobs for worker in self._workers):
                results.update(self._receive())
            else:
                return

    def _receive(self) -> Iterator[tuple[int, ResultT | MidwayError]]:
        """Yield results that workers have sent, with their numbers; block until there is one."""
        by_connection = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(by_connection)):
            worker = by_connection[connection]  # pyright: ignore[reportArgumentType]
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):  # it has died, perhaps in the middle of a message
                if not self._closed:
                    self._replace(worker)
                continue
            if isinstance(message, str):
                worker.reading = message
                self._silent_deaths = 0
                continue
            job = worker.jobs.popleft()
            worker.reading = None
            if isinstance(message, Packed):
                message = message.load(worker.memory[job.slot])
            worker.free.append(job.slot)
            yield job.number, message

    def _replace(self, worker: "_Worker") -> None:
        """Start a worker for one that died, and quarantine the file that it died on."""
        worker.process.join()
        code = worker.process.exitcode or 0
        if code >= 0:
            raise RuntimeError(f"a reading process ended with exit code {code}; see its traceback")
        how, clip = signal.Signals(-code).name, worker.reading
        if clip is not None and -code == signal.SIGKILL and clip not in self._killed:
            self._killed.add(clip)
        elif clip is not None:
            self.lost[clip] = (
                f"takes more than {self._timeout_seconds:g} s to read"
                if -code == signal.SIGALRM
                else f"ends the process that reads it ({how})"
            )
        else:
            self._silent_deaths += 1
            if self._silent_deaths > MAX_SILENT_DEATHS:
                raise MidwayError(
                    f"reading processes die before they begin ({how}); is there enough memory for "
                    f"{len(self._workers)} of them? give fewer"
                )
        fresh = self._start()
        self._workers[self._workers.index(worker)] = fresh
        if self._closed:  # meanwhile, in another thread
            fresh.process.kill()
        for job in worker.jobs:
            fresh.give((job.number, job.task), self.lost)

    def _start(self) -> "_Worker":
        here, there = get_context("spawn").Pipe()
        memory = [SharedMemory(SLOT_BYTES) for _ in range(SLOTS)]
        process = get_context("spawn").Process(
            target=_serve, args=(there, memory, self._work, self._timeout_seconds), daemon=True
        )
        with _signals_held_back():
            process.start()
        there.close()
        return _Worker(process, here, memory)


@dataclass(frozen=True)
class _Job:
    number: int
    task: Any
    slot: int


@dataclass(eq=False)
class _Worker:
    """A process of the pool, seen from the parent."""

    process: SpawnProcess
    connection: Connection
    memory: list[SharedMemory]
    jobs: deque[_Job] = field(default_factory=deque)
    """Tasks sent and not yet done, in order."""
    free: list[int] = field(default_factory=lambda: list(range(SLOTS)))
    reading: str | None = None
    """File that it announced."""

    def give(self, job: tuple[int, Any], lost: Mapping[str, str]) -> None:
        number, task = job
        slot = self.free.pop()
        self.jobs.append(_Job(number, task, slot))
        with suppress(ConnectionError):  # it has died: reading from it will tell
            self.connection.send((task, slot, dict(lost)))


def _serve(
    connection: Connection,
    memory: list[SharedMemory],
    work: Work[Any, Any],
    timeout_seconds: float,
) -> None:
    """Run a worker until the other end of its pipe is closed."""
    # Only the parent answers signals to the process group: it needs results to end its step, and
    # kills the workers afterwards.
    for number in _GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if torch := sys.modules.get("torch"):  # imported with the work, if it needs it
        torch.set_num_threads(1)  # the other cores have workers of their own
    inbox: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=_fill, args=(inbox, connection), daemon=True).start()

    def send(message: str | MidwayError | Packed) -> None:
        # No time counts while the other end does not listen.
        signal.setitimer(signal.ITIMER_REAL, 0)
        with suppress(ConnectionError):  # it has gone: `_fill` ends this process
            connection.send(message)

    def announce(clip: str) -> None:
        send(clip)
        # Unhandled, so that it ends the process even inside a decoder's C code.
        signal.setitimer(signal.ITIMER_REAL, timeout_seconds)

    trim, done = _trim(), 0
    while True:
        task, slot, lost = pickle.loads(inbox.get())
        try:
            result = Packed.into(memory[slot], work(task, Reading(lost, announce)))
        except MidwayError as error:
            result = error
        send(result)
        if (done := done + 1) % TASKS_PER_TRIM == 0:
            trim()


def _trim() -> Callable[[], object]:
    """Return a function that gives free memory back to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return partial(trim, 0) if trim else lambda: None


def _fill(inbox: "SimpleQueue[bytes]", connection: Connection) -> None:
    """Queue tasks as they arrive, so that the parent never blocks, and exit with the parent."""
    with suppress(EOFError, OSError):
        while True:
            inbox.put(connection.recv_bytes())
    os._exit(0)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Block `_GROUP_SIGNALS` while a process starts, until it can ignore them."""
    resource_tracker.ensure_running()  # else it would start in between, and unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
