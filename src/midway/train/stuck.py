"""End of a process that was asked to stop, but whose main thread waits in C code.

Python runs a signal handler between two instructions of the main thread. While that waits for a
rank that was stopped, within a collective operation of gloo or NCCL, no handler runs.
"""

import os
import signal
import socket
import sys
import time
from math import inf
from threading import Thread
from types import TracebackType
from typing import Self

from midway.errors import INTERRUPTED

STUCK_SECONDS = 300.0
"""Time from a signal until the process ends, if its handler does not run; a step is shorter."""
IMPATIENT_SECONDS = 10.0
"""The same time from another signal on."""
_RECENT_SECONDS = 2.0


class StuckWatch:
    """Context that ends the process if a handler of SIGTERM or SIGINT does not run in time.

    Handlers must call `handled`. Nothing else may use `signal.set_wakeup_fd` meanwhile.
    """

    def __init__(self) -> None:
        self._deadline = inf
        self._handled_at = -inf

    def __enter__(self) -> Self:
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        self._before = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        self._thread = Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        signal.set_wakeup_fd(self._before)
        self._sender.close()
        self._thread.join()
        self._receiver.close()

    def handled(self) -> None:
        """Note that the main thread runs the handler of a signal."""
        self._handled_at = time.monotonic()
        self._deadline = inf

    def _watch(self) -> None:
        """Read the numbers of signals, which the C handler writes at once, until the end."""
        while True:
            # The main thread may handle the signal meanwhile, so this looks every second.
            self._receiver.settimeout(1.0 if self._deadline < inf else None)
            try:
                numbers = self._receiver.recv(64)
            except TimeoutError:
                if time.monotonic() > self._deadline:
                    _end()
                continue
            if not numbers:
                return
            now = time.monotonic()
            # The handler usually runs before this thread reads the number of its signal.
            is_handled = now - self._handled_at < _RECENT_SECONDS
            if not is_handled and {*numbers} & {signal.SIGTERM, signal.SIGINT}:
                wait = STUCK_SECONDS if self._deadline == inf else IMPATIENT_SECONDS
                self._deadline = min(self._deadline, now + wait)


def _end() -> None:
    sys.stderr.write(
        "midway: stopped while another process of the run did not answer; see its output, then "
        "continue from the last checkpoint by --resume\n"
    )
    sys.stderr.flush()
    os._exit(INTERRUPTED)
