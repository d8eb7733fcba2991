"""Errors that a user can correct, and exit codes."""

import os
from pathlib import Path

_MAX_REASON = 300
INTERRUPTED = 3
"""Exit code of a command that was asked to stop and can be resumed."""


class MidwayError(Exception):
    """Something a user can mend: its text names what, where and what to do.

    The command line prints the text alone, without a traceback, and exits with code 2.
    """


def one_line(error: BaseException, where: str | Path = "") -> str:
    """Return an error of the system or of a library as one line that begins with the file.

    Args:
        error: The error; an `OSError` may name its own file.
        where: File or URL for an error that names none.
    """
    named = getattr(error, "filename", None)
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    reason = reason[:_MAX_REASON] or type(error).__name__
    file = named if isinstance(named, str | bytes | Path) and named else where
    return f"{os.fsdecode(file)}: {reason}" if file else reason
