"""Exception for errors that a user can correct, an exit code, and numbers with their nouns."""

INTERRUPTED = 3
"""Exit code of an interrupted command that can be resumed."""


class MidwayError(Exception):
    """Error that a user can correct; its one-line message names the subject, cause and remedy.

    The command line prints only the message, without a traceback, and exits with code 2.
    """


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun; the plural has an "s" unless it is given.

    Example:
        >>> counted(1, "clip"), counted(1200, "clip"), counted(2, "patch", "patches")
        ('1 clip', '1,200 clips', '2 patches')

    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
