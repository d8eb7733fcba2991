"""Errors that a user can correct, and exit codes."""

INTERRUPTED = 3
"""Exit code of a command that was asked to stop and can be resumed."""


class MidwayError(Exception):
    """Something a user can mend: its text names what, where and what to do.

    The command line prints the text alone, without a traceback, and exits with code 2.
    """
