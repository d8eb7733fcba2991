"""Ordered pool of worker processes that survives crashing and hanging decoders.

Each worker is a spawned process with a pipe and shared memory to its parent. It announces each
file before it reads it. If the worker dies on the file, or an alarm ends it after a timeout, the
file is quarantined and a new worker repeats the tasks without it. After SIGKILL the file is tried
once more, because users and out-of-memory killers send this signal rather than decoders, and the
samples must not depend on them. A stopped worker (SIGSTOP, a disk that never answers) cannot end
itself: the parent kills it when its timeout has passed.

The arrays of a result are transferred in shared memory, from which the parent copies them.
"""

import atexit
import os
import pickle
import signal
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from queue import SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any, Generic, TypeVar

from midway.allocator import keep_some_freed_memory, return_freed_memory
from midway.data.workers.shared_memory import Packed, SharedMemory
from midway.errors import MidwayError, one_line

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")

SLOTS = 2
"""Tasks per worker: the current one and a queued one, so that the worker never waits."""
SLOT_BYTES = 64 * 2**20
"""Shared memory in bytes for the arrays of one result; untouched pages use no memory."""
MAX_SILENT_DEATHS = 3
"""Number of consecutive workers that may die before they announce a file."""
TASKS_PER_TRIM = 100
"""Tasks after which a worker returns its free memory; otherwise workers would grow slowly."""
_GRACE_SECONDS = 10.0
"""Time beyond the timeout after which the parent kills a worker that did not end itself."""
_SILENT_SECONDS = 600.0
"""Time without any file after which the parent kills a worker; the start may take minutes."""
_STALLED_SECONDS = 60.0
"""Time without a byte within a message after which the parent kills its sender."""
_POLL_SECONDS = 1.0
_GROUP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Reading:
    """Handle with which a task reports the file it reads and skips quarantined files.

    Args:
        lost: Quarantined files, each with a verb phrase for the reason.
        announce: Called with the name of each file.
    """

    def __init__(self, lost: Mapping[str, str], announce: Callable[[str], None]) -> None:
        self.lost = lost
        self._announce = announce

    def __call__(self, clip: str) -> None:
        """Report that the task starts to read `clip`; each call restarts the timeout."""
        self._announce(clip)

    def require(self, location: str) -> None:
        """Report a file that must not be skipped.

        Raises:
            MidwayError: The file is quarantined.
        """
        if location in self.lost:
            raise MidwayError(f"{location}: {self.lost[location]}; replace the file")
        self(location)


Work = Callable[[TaskT, Reading], ResultT]


class Workers(Generic[TaskT, ResultT]):
    """Pool of worker processes; close it after use.

    Args:
        work: Function that executes one task. It, the tasks and the results must be picklable.
            `map` raises a `MidwayError` of a task at the place of its result.
        num_workers: Number of processes; 0 executes tasks in this process, without protection.
        timeout_seconds: Time to read one file after which a worker counts as hanging.
    """

    def __init__(
        self, work: Work[TaskT, ResultT], *, num_workers: int, timeout_seconds: float
    ) -> None:
        self.lost: dict[str, str] = {}
        """Quarantined files, each with a verb phrase for the reason."""
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
        """Kill the processes; this also ends a `map` in another thread."""
        self._closed = True
        atexit.unregister(self.close)
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()

    def map(self, tasks: Iterable[TaskT]) -> Iterator[ResultT]:
        """Yield results in the order of the tasks, which are taken from the iterable as needed.

        The pool cannot be reused after an error or an unfinished iteration.

        Raises:
            MidwayError: A task raised it, or workers die before they begin to read.
            RuntimeError: A task raised another error; its traceback is on standard error.
        """
        if not self._workers:
            for task in tasks:
                yield self._work(task, Reading(self.lost, lambda clip: None))
            return
        numbered = enumerate(tasks)
        results: dict[int, ResultT | MidwayError] = {}
        submitted, number, exhausted = 0, 0, False
        # Bounds the results that wait for a slow task; below it, some worker has a free slot.
        most_ahead = SLOTS * len(self._workers)
        while not self._closed:
            while not exhausted and submitted - number < most_ahead:
                job = next(numbered, None)
                exhausted = job is None
                if job is not None:
                    max(self._workers, key=lambda worker: len(worker.free)).submit(job, self.lost)
                    submitted += 1
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
        """Wait for messages of the workers; yield the results among them with their numbers."""
        by_connection = {worker.connection: worker for worker in self._workers}
        begin = monotonic()
        ready = wait(list(by_connection), _POLL_SECONDS)
        # Only the time that this process waited counts, not that in which it was busy or stopped.
        waited = min(monotonic() - begin, _POLL_SECONDS)
        silent = [by for connection, by in by_connection.items() if connection not in ready]
        self._kill_stopped(silent, waited)
        for connection in ready:
            worker = by_connection[connection]  # pyright: ignore[reportArgumentType]
            worker.silent_seconds = 0.0
            try:
                message = worker.connection.recv()
            except (EOFError, OSError) as error:  # the worker died, perhaps within a message
                if isinstance(error, BlockingIOError):  # it was stopped within one
                    worker.process.kill()
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

    def _kill_stopped(self, silent: list["_Worker"], waited: float) -> None:
        """Kill the workers that sent nothing for so long that their own alarm cannot have fired."""
        for worker in silent:
            worker.silent_seconds += waited if worker.jobs else 0.0
            limit = self._timeout_seconds + _GRACE_SECONDS
            if worker.silent_seconds > (limit if worker.reading else max(limit, _SILENT_SECONDS)):
                worker.process.kill()

    def _replace(self, worker: "_Worker") -> None:
        """Replace a dead worker, and quarantine the file it died on."""
        worker.process.join()
        code = worker.process.exitcode or 0
        if code >= 0:
            raise RuntimeError(f"a worker process failed with exit code {code}; see its traceback")
        signal_name, clip = signal.Signals(-code).name, worker.reading
        if clip is not None and -code == signal.SIGKILL and clip not in self._killed:
            self._killed.add(clip)
        elif clip is not None:
            self.lost[clip] = (
                f"takes more than {self._timeout_seconds:g} s to read"
                if -code == signal.SIGALRM
                else f"ends the process that reads it ({signal_name})"
            )
        else:
            self._silent_deaths += 1
            if self._silent_deaths > MAX_SILENT_DEATHS:
                raise MidwayError(
                    f"workers: processes die before they begin to read ({signal_name}); check the "
                    f"free memory, or use fewer workers than {len(self._workers)}"
                )
        fresh = self._start()
        self._workers[self._workers.index(worker)] = fresh
        if self._closed:  # in the meantime, by another thread
            fresh.process.kill()
        for job in worker.jobs:
            fresh.submit((job.number, job.task), self.lost)

    def _start(self) -> "_Worker":
        parent_end, child_end = get_context("spawn").Pipe()
        _limit_wait(parent_end, _STALLED_SECONDS)
        memory = [SharedMemory(SLOT_BYTES) for _ in range(SLOTS)]
        process = get_context("spawn").Process(
            target=_serve, args=(child_end, memory, self._work, self._timeout_seconds), daemon=True
        )
        with _signals_blocked():
            process.start()
        child_end.close()
        return _Worker(process, parent_end, memory)


@dataclass(frozen=True)
class _Job:
    number: int
    task: Any
    slot: int


@dataclass(eq=False)
class _Worker:
    """A worker process, as its parent sees it."""

    process: SpawnProcess
    connection: Connection
    memory: list[SharedMemory]
    jobs: deque[_Job] = field(default_factory=deque)
    """Tasks sent and not finished, in order."""
    free: list[int] = field(default_factory=lambda: list(range(SLOTS)))
    """Shared memory blocks that no task uses."""
    reading: str | None = None
    """File that it has announced; None between tasks."""
    silent_seconds: float = 0.0
    """Time that the parent has waited for a message."""

    def submit(self, job: tuple[int, Any], lost: Mapping[str, str]) -> None:
        number, task = job
        slot = self.free.pop()
        self.jobs.append(_Job(number, task, slot))
        with suppress(ConnectionError):  # a dead worker: the next `recv` notices
            self.connection.send((task, slot, dict(lost)))


def _serve(
    connection: Connection,
    memory: list[SharedMemory],
    work: Work[Any, Any],
    timeout_seconds: float,
) -> None:
    """Execute tasks in a worker until the parent closes its end of the pipe."""
    # Only the parent handles signals to the process group: it needs results to finish its step,
    # and kills the workers afterwards.
    for number in _GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if torch := sys.modules.get("torch"):  # imported with the work, if it needs it
        torch.set_num_threads(1)  # the other cores run other workers
    inbox: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=_receive_tasks, args=(inbox, connection), daemon=True).start()
    reading = ""

    def send(message: str | MidwayError | Packed) -> None:
        # Stop the timeout, because `send` blocks while the parent is busy.
        signal.setitimer(signal.ITIMER_REAL, 0)
        with suppress(ConnectionError):  # the parent is gone: `_receive_tasks` ends this process
            connection.send(message)

    def announce(clip: str) -> None:
        nonlocal reading
        reading = clip
        send(clip)
        # Unhandled, so that it ends the process even inside a decoder's C code.
        signal.setitimer(signal.ITIMER_REAL, timeout_seconds)

    keep_some_freed_memory()
    done = 0
    while True:
        task, slot, lost = pickle.loads(inbox.get())
        reading = ""
        try:
            result = Packed.into(memory[slot], work(task, Reading(lost, announce)))
        except MidwayError as error:
            result = error
        except (OSError, MemoryError) as error:  # a full disk or memory, not a mistake in the code
            result = MidwayError(one_line(error, reading))
        send(result)
        if (done := done + 1) % TASKS_PER_TRIM == 0:
            return_freed_memory()


def _limit_wait(connection: Connection, seconds: float) -> None:
    """Let a read that gets no byte for some time raise a `BlockingIOError`."""
    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        # The structure timeval: seconds and microseconds.
        whole, part = divmod(seconds, 1)
        limit = struct.pack("@ll", int(whole), int(part * 1e6))
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)


def _receive_tasks(inbox: "SimpleQueue[bytes]", connection: Connection) -> None:
    """Queue tasks as they arrive, so that the parent never blocks; exit with the parent."""
    with suppress(EOFError, OSError):
        while True:
            inbox.put(connection.recv_bytes())
    os._exit(0)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block `_GROUP_SIGNALS` while a process starts, until it can ignore them."""
    resource_tracker.ensure_running()  # otherwise it would start later, and unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
