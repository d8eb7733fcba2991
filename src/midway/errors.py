"""The errors that a user can mend, told in one line each."""


class MidwayError(Exception):
    """Something a user can mend: its text names what, where and what to do.

    The command line prints the text alone, without a traceback, and exits with code 2.
    """
