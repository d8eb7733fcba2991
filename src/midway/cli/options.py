"""Parsing of command-line options with one-line errors, points and checks of output files."""

import difflib
import inspect
import io
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr
from dataclasses import MISSING
from functools import partial, wraps
from itertools import dropwhile, takewhile
from pathlib import Path
from textwrap import dedent
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
"""Type of an argument that takes the fields of `ReleaseHints` as options without a prefix."""
RENAMED = {"--run": "--network", "--start.network": "--network", "--flow.run": "--flow.network"}
"""Renamed options: name in version 0.1, and name today."""
NO_HINTS = ReleaseHints()
SIMILAR = 0.75
"""Smallest similarity of an unknown option to one that is suggested, from 0 to 1."""
SHORTEST = 3
"""Smallest number of letters that are taken for the beginning of an option."""


def parse(
    kind: type[O] | Callable[..., O],
    words: Sequence[str],
    *,
    prog: str,
    default: Any = MISSING,
    about: str | None = None,
) -> O:
    """Parse options into a dataclass or the arguments of a function.

    Args:
        kind: Dataclass of the options, or a function to call with them after parsing.
        words: Command-line words after the command.
        prog: Name of the command, for the help text.
        default: Instance of the dataclass with the default values.
        about: Description for a short help. Without it, ``--help`` lists all options, as
            ``--help-all`` always does.

    Returns:
        The dataclass, or the result of the function.

    Raises:
        MidwayError: An option is unknown or ill-typed; the message names the nearest known one, or
            the new name of a renamed one.
        SystemExit: Help was requested and printed.

    """
    if about is not None and {"-h", "--help"} & {*words}:
        print(short_help(kind, prog=prog, about=about, default=default))
        raise SystemExit(0)
    for word in words:
        option = word.partition("=")[0]
        if option in RENAMED:
            raise MidwayError(f"{option}: is now {RENAMED[option]}; use that ({prog} --help)")
    words = ["--help" if word == "--help-all" else word for word in words]
    if isinstance(kind, type):
        return _parsed(kind, words, prog, default)
    return _parsed(_deferred(kind), words, prog, MISSING)()


def description(function: Callable[..., Any]) -> str:
    """Return a function's docstring without its Args, Returns and Raises sections.

    If it has no "Command:", the docstring of the module is appended; rows of a table share one.
    """
    text = inspect.getdoc(function) or ""
    above = inspect.getdoc(inspect.getmodule(function)) or ""
    if "Command:" not in text and "Command:" in above:
        text = f"{text}\n\n{above}"
    # Backticks mark code for documentation; a terminal shows it as it is typed.
    return re.split(r"\n+(?:Args|Returns|Raises):\n", text)[0].replace("``", "")


def _deferred(function: Callable[..., O]) -> Callable[..., Callable[[], O]]:
    """Return a function with the same signature that binds its arguments without calling."""

    @wraps(function)
    def bind(*positional: Any, **named: Any) -> Callable[[], O]:
        return partial(function, *positional, **named)

    return bind


def _parsed(kind: Any, words: Sequence[str], prog: str, default: Any) -> Any:
    """Parse the words with tyro, and convert its error message to one line."""
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
    """Extract the message and the nearest option, if any, from the box that tyro prints."""
    rows = [re.sub(r"[│╭╮╰╯]", " ", line).rstrip() for line in box.splitlines()]
    if missing := _missing(rows):
        return missing
    _title, *body = (row.strip() for row in rows if row)
    # Without Unicode on stdout, the box is a title line above a rule of dashes.
    message = takewhile(_is_text, dropwhile(lambda line: not _is_text(line), body))
    text = " ".join(message).rstrip(".")
    text = re.sub(
        r"Missing value for argument '(.+)'\. Expected 1 values", r"\1: no value; give it", text
    )
    unknown = re.search(r"--[\w.-]+", text)
    nearest = re.search(r"meant:\W*(--[\w.-]+)", " ".join(body))
    if unknown and nearest and _is_near(unknown[0], nearest[1]):
        return f"{text}; did you mean {nearest[1]}?"
    return text


def _missing(rows: Sequence[str]) -> str:
    """Return the message for tyro's list of missing options; empty if there is no such list."""
    below = [*dropwhile(lambda row: "Missing from" not in row, rows)][1:]
    listed = [*takewhile(lambda row: _is_text(row.strip()), below)]
    # An option, its choices over several rows, and its help, which is indented further.
    found = re.findall(r"((?:^\S.*\n)+)((?: .*\n)+)", dedent("\n".join([*listed, ""])), re.M)
    entries = []
    for words, text in found:
        word, brace, choices = words.replace("\n", "").partition("{")
        word = word.partition("[")[0].strip()
        name = (re.findall(r"--[\w.-]+", word) or [word])[-1] + (brace and f" {brace}{choices}")
        about = " ".join(text.replace("(required)", "").split()).rstrip(".")
        entries.append(f"{name} ({about})")
    unknown = re.findall(r"^\s+(--[^\W_][\w.-]*)$", "\n".join(below[len(listed) :]), re.M)
    if not entries:
        return ""
    message = f"missing {' and '.join(entries)}; give {'it' if len(entries) == 1 else 'them'}"
    return f"{' and '.join(unknown)}: no such option; {message}" if unknown else message


def _is_near(unknown: str, known: str) -> bool:
    """Return whether an option is a likely misspelling or beginning of another one."""
    # tyro also suggests options that merely contain the unknown one.
    group, _, last = unknown.strip("-").rpartition(".")
    known_group, _, known_last = known.strip("-").rpartition(".")
    if group and group == known_group:
        # What options of one group share says nothing about their names.
        unknown, names = last, (known_last,)
    else:
        unknown, names = unknown.strip("-"), (known.strip("-"), known_last)
    return any(
        difflib.SequenceMatcher(a=unknown, b=name).ratio() >= SIMILAR
        or (len(unknown) >= SHORTEST and name.startswith(unknown))
        for name in names
    )


def _is_text(line: str) -> bool:
    return bool(line.strip("─-"))


def parse_points(words: Sequence[str]) -> Float[Tensor, "points 2"]:
    """Parse points written as ``X,Y``.

    Returns:
        Column x and row y of each point in pixels, shape (points, 2).

    Raises:
        MidwayError: There is no point, or one is not a pair of numbers.

    """
    if not words:
        raise MidwayError("--point: no point; give X,Y in pixels from the upper left corner")
    points = []
    for word in words:
        try:
            x, y = map(float, word.split(","))
        except ValueError:
            raise MidwayError(f"point '{word}': is not X,Y; give two numbers like 120,80") from None
        points.append((x, y))
    return torch.tensor(points)


def say(line: str) -> None:
    """Print one line on standard output; escape characters that a terminal would interpret."""
    print(printable(line), flush=True)


def next_step(network: str | Path) -> str:
    """Return the line that names what to do with a trained network."""
    name = shlex.quote(str(network))
    return (
        f"next: midway eval NAME --network {name} (midway eval --help lists names), "
        f"midway export {name} TARGET"
    )


def check_outputs(written: Sequence[Path], read: Sequence[Path]) -> None:
    """Check that output files can be written without overwriting an input.

    Args:
        written: Output files of the command.
        read: Input files of the command.

    Raises:
        MidwayError: The folder of an output does not exist, or an output is also an input.

    """
    for path in written:
        if not path.parent.is_dir():
            raise MidwayError(f"{path}: no folder {path.parent}; make it first")
        if path.resolve() in [each.resolve() for each in read]:
            raise MidwayError(f"{path}: is an input and would be overwritten; give another name")


def short_names(networks: Iterable[str]) -> dict[str, str]:
    """Return a caption for each network: the last part of its path, or all of it if two agree."""
    last = {name: name.rstrip("/").rpartition("/")[2] for name in networks}
    count = Counter(last.values())
    return {name: name if count[part] > 1 else part for name, part in last.items()}
