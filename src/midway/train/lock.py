"""Lock of a run folder, so that no two processes write one run."""

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from midway.errors import MidwayError

LOCK_NAME = ".lock"
"""File in the run folder while the run lives; a killed run leaves it, without effect."""
_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; the system releases it when the process ends, however it ends.

    A missing folder is created, and removed again if nothing was written to it.

    Args:
        folder: Folder of a run.

    Raises:
        MidwayError: Another process holds the lock.
        OSError: The folder cannot be written.

    """
    path, is_new = folder / LOCK_NAME, not folder.exists()
    file = _acquired(path)
    try:
        yield
    finally:
        # Removed while it is held: whoever opened it before notices that it is gone.
        with suppress(OSError):
            path.unlink()
            if is_new:
                folder.rmdir()
        os.close(file)


def _acquired(path: Path) -> int:
    """Return the descriptor of the locked file, which contains this process and its host."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _lock(file, path)
            # The holder before may have removed the file between the opening and the lock.
            is_current = path.exists() and os.path.samestat(path.stat(), os.fstat(file))
            if is_current:
                os.truncate(file, 0)
                os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _lock(file: int, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(file, 200, 0).decode(errors="replace") or "another process"
        raise MidwayError(
            f"{path.parent}: is the folder of a run that {holder} is writing; wait until it ends, "
            "or choose another --run.folder"
        ) from None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        _log.warning("%s: cannot be locked (%s); start no second run there", path, error.strerror)
