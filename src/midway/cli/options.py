"""Options of a command from its words, with errors of one line."""

import inspect
import io
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import MISSING
from functools import partial, wraps
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from midway.cli.short_help import short_help
from midway.errors import MidwayError, printable
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
    default: Any = MISSING,
    about: str | None = None,
) -> O:
    """Build options from words, or call a function with them; print the help on request.

    Args:
        kind: Dataclass of the options, or a function whose arguments they are. It is called after
            the words are parsed.
        words: As typed behind the command.
        prog: The command, for the help text.
        default: Instance of the dataclass, with the values of what the words leave out.
        about: Description for a help of one screen; without it ``--help`` shows all options, as
            ``--help-all`` always does.

    Raises:
        MidwayError: Unknown or ill-typed options; the nearest known one, or the new name of an old
            one, is named.
        SystemExit: The words ask for help.

    """
    if about is not None and {"-h", "--help"} & {*words}:
        print(short_help(kind, prog=prog, about=about, default=default))
        raise SystemExit(0)
    for word in words:
        option = word.partition("=")[0]
        if option in RENAMED:
            raise MidwayError(f"{option}: is now {RENAMED[option]}; type that ({prog} --help)")
    words = ["--help" if word == "--help-all" else word for word in words]
    if isinstance(kind, type):
        return _parsed(kind, words, prog, default)
    return _parsed(_deferred(kind), words, prog, MISSING)()


def description(function: Callable[..., Any]) -> str:
    """Return a function's docstring without its sections of arguments and errors.

    A function that does not name its command has it in the docstring of its module, as the rows of
    a table do.
    """
    text = inspect.getdoc(function) or ""
    above = inspect.getdoc(inspect.getmodule(function)) or ""
    if "Command:" not in text and "Command:" in above:
        text = f"{text}\n\n{above}"
    return re.split(r"\n+(?:Args|Returns|Raises):\n", text)[0]


def _deferred(function: Callable[..., O]) -> Callable[..., Callable[[], O]]:
    """Return a function with the same arguments that returns the call instead of making it."""

    @wraps(function)
    def bind(*positional: Any, **named: Any) -> Callable[[], O]:
        return partial(function, *positional, **named)

    return bind


def _parsed(kind: Any, words: Sequence[str], prog: str, default: Any) -> Any:
    """Return what tyro makes of the words; its complaints become an error of one line."""
    complaint = io.StringIO()
    given = tyro.MISSING_NONPROP if default is MISSING else default
    try:
        with redirect_stderr(complaint):
            return tyro.cli(kind, args=list(words), prog=prog, default=given)
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


def parse_points(words: Sequence[str]) -> Float[Tensor, "points 2"]:
    """Column x and row y of points, each typed as ``X,Y``.

    Raises:
        MidwayError: There is none, or one is no pair of numbers.

    """
    if not words:
        raise MidwayError("no point; give --point X,Y in pixels from the upper left corner")
    points = []
    for word in words:
        try:
            x, y = map(float, word.split(","))
        except ValueError:
            raise MidwayError(f"point '{word}': give X,Y in pixels, like 120,80") from None
        points.append((x, y))
    return torch.tensor(points)


def say(line: str) -> None:
    """Print one line on standard output, with what a terminal would interpret escaped."""
    print(printable(line), flush=True)


def check_outputs(written: Sequence[Path], read: Sequence[Path]) -> None:
    """See that files can be written without loss.

    Args:
        written: What the command is to write.
        read: What it reads.

    Raises:
        MidwayError: A folder is not there, or an input would be written over.

    """
    for path in written:
        if not path.parent.is_dir():
            raise MidwayError(f"{path}: no folder {path.parent}; make it first")
        if path.resolve() in [each.resolve() for each in read]:
            raise MidwayError(f"{path}: is an input and would be lost; give another name")
