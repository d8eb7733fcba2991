"""Options of a command from its words, with errors of one line."""

import io
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from itertools import dropwhile, takewhile
from typing import Annotated, Any, TypeVar

import tyro

from midway.errors import MidwayError
from midway.models.weights.release import ReleaseHints

O = TypeVar("O")  # noqa: E741
ReleaseOptions = Annotated[ReleaseHints, tyro.conf.OmitArgPrefixes]
"""The fields of `ReleaseHints` as options of a command."""
RENAMED = {"--run": "--network", "--start.network": "--network", "--flow.run": "--flow.network"}
"""Options of version 0.1 and their names today."""
NO_HINTS = ReleaseHints()


def parse(
    kind: type[O] | Callable[..., O],
    words: Sequence[str],
    *,
    prog: str,
    default: Any = tyro.MISSING_NONPROP,
) -> O:
    """Parse the options that `words` set, or the help text and the end when they ask for it.

    Args:
        kind: Dataclass of the options, or a function whose arguments they are.
        words: As typed behind the command.
        prog: The command, for the help text.
        default: Values of what the words leave out.

    Raises:
        MidwayError: Unknown or ill-typed options; the nearest known one, or the new name of an old
            one, is named.

    """
    for word in words:
        option = word.partition("=")[0]
        if option in RENAMED:
            raise MidwayError(f"{option}: is now {RENAMED[option]}; type that ({prog} --help)")
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            return tyro.cli(kind, args=list(words), prog=prog, default=default)
    except SystemExit as end:
        if not end.code:
            raise
        raise MidwayError(f"{_one_line(complaint.getvalue())} ({prog} --help)") from None


def _one_line(box: str) -> str:
    """Extract from the box that tyro prints the message, and the nearest option if it names one."""
    lines = [re.sub(r"[│╭╮╰╯]", " ", line).strip() for line in box.splitlines()]
    _title, *body = (line for line in lines if line)
    # Where stdout cannot show a box, its title is a line of its own, with a rule of dashes below.
    message = takewhile(_is_text, dropwhile(lambda line: not _is_text(line), body))
    nearest = re.search(r"meant:\W*(--[\w.-]+)", " ".join(body))
    text = " ".join(message).rstrip(".")
    return f"{text}; did you mean {nearest[1]}?" if nearest else text


def _is_text(line: str) -> bool:
    return bool(line.strip("─-"))
