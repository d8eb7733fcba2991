"""Exception for errors that a user can correct, an exit code, and formatting of error texts."""

import errno
import os
import unicodedata
from pathlib import Path

_MAX_REASON = 300
_REMEDIES = {
    errno.ENOSPC: "free some space or write elsewhere",
    errno.EDQUOT: "free some space or write elsewhere",
    errno.EFBIG: "raise the limit of file sizes or write elsewhere",
    errno.EROFS: "write elsewhere",
}
_DIRECTIONS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
INTERRUPTED = 3
"""Exit code of an interrupted command that can be resumed."""


class MidwayError(Exception):
    """Error that a user can correct; its one-line message names the subject, cause and remedy.

    The command line prints only the message, without a traceback, and exits with code 2. Names and
    values from files may be in the message, so it is made `printable`.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class DivergedError(MidwayError):
    """A training's loss or gradient was not finite for many steps."""


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun; the plural has an "s" unless it is given.

    Examples:
        >>> counted(1, "clip"), counted(1200, "clip"), counted(2, "patch", "patches")
        ('1 clip', '1,200 clips', '2 patches')

    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it.

    Examples:
        >>> [duration(each) for each in (42, 300, 8_000, 500_000)]
        ['42 s', '5.0 minutes', '2.2 hours', '5.8 days']

    """
    units = (("days", 86_400, 2.0), ("hours", 3600, 1.5), ("minutes", 60, 1.5))
    for unit, size, least in units:
        if seconds >= least * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s"


def one_line(error: BaseException, where: str | Path = "") -> str:
    """Return an error of the system or of a library as one line that begins with the file.

    Args:
        error: The error; an `OSError` may name its own file.
        where: File or URL for an error that names none.
    """
    named = getattr(error, "filename", None)
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())
    reason = reason[:_MAX_REASON] or type(error).__name__
    if remedy := _REMEDIES.get(getattr(error, "errno", None) or 0):
        reason += f"; {remedy}"
    file = named if isinstance(named, str | bytes | Path) and named else where
    return f"{os.fsdecode(file)}: {reason}" if file else reason


def printable(text: str) -> str:
    """Return text as one line, with characters escaped that a terminal would interpret.

    Names of files and values in them may contain line breaks, escape sequences, marks that reverse
    the direction of writing, and bytes that are not UTF-8. These are written as Python escapes.
    """
    return "".join(_escaped(letter) if _is_unsafe(letter) else letter for letter in text)


def _is_unsafe(letter: str) -> bool:
    return letter in _DIRECTIONS or unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # a byte that is not UTF-8
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()
