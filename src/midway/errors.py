"""Exception for errors that a user can correct, and an exit code."""

INTERRUPTED = 3
"""Exit code of an interrupted command that can be resumed."""


class MidwayError(Exception):
    """Error that a user can correct; its one-line message names the subject, cause and remedy.

    The command line prints only the message, without a traceback, and exits with code 2.
    """
