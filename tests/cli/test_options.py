"""Options are parsed first; the command runs after, with its own standard error."""

import io
import sys
from typing import Literal

import pytest

from midway.cli.options import description, parse
from midway.errors import MidwayError


def warn(*, times: int = 1) -> int:
    """Write to standard error.

    Args:
        times: How often.
    """
    sys.stderr.write("careful\n" * times)
    return times


def leave() -> None:
    """End with a code."""
    raise SystemExit(3)


def test_what_a_command_writes_to_standard_error_is_seen(capsys):
    assert parse(warn, ["--times", "2"], prog="midway warn") == 2
    assert capsys.readouterr().err == "careful\ncareful\n"


def test_a_command_may_end_with_its_own_code():
    with pytest.raises(SystemExit) as end:
        parse(leave, [], prog="midway leave")
    assert end.value.code == 3


def test_a_refused_option_runs_nothing(capsys):
    with pytest.raises(MidwayError, match=r"--timez.*did you mean --times.*midway warn --help"):
        parse(warn, ["--timez", "2"], prog="midway warn")
    assert capsys.readouterr().err == ""


def test_a_description_ends_before_the_arguments():
    assert description(warn) == "Write to standard error."


def rate(*, first_seed: int = 0, generate: bool = False, levels: int = 1) -> None:
    """Take options that contain others."""


@pytest.mark.parametrize("word", ["--rate", "--erat", "--e", "--x.seeds"])
def test_only_a_misspelling_gets_a_suggestion(word):
    with pytest.raises(MidwayError) as error:
        parse(rate, [word, "2"], prog="midway rate")
    assert word in str(error.value)
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize(("word", "meant"), [("--level", "--levels"), ("--first", "--first-seed")])
def test_a_misspelling_gets_the_option(word, meant):
    with pytest.raises(MidwayError) as error:
        parse(rate, [word, "2"], prog="midway rate")
    assert f"did you mean {meant}?" in str(error.value)


def draw(*, source: str, kind: Literal["lines", "dots"], times: int = 1) -> None:
    """Draw.

    Args:
        source: Image to draw.
        kind: Marks to draw it with.
        times: How often.
    """


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_missing_options_are_listed_with_choices_and_help(encoding, monkeypatch):
    # tyro draws its box by the encoding of standard output.
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    with pytest.raises(MidwayError) as error:
        parse(draw, ["--kimd", "dots"], prog="midway draw")
    assert str(error.value) == (
        "--kimd: no such option; missing --source (Image to draw) and --kind {lines,dots} (Marks "
        "to draw it with); give them (midway draw --help)"
    )
    with pytest.raises(MidwayError, match=r"^missing --source \(Image to draw\); give it \(midway"):
        parse(draw, ["--kind", "dots"], prog="midway draw")


def test_a_missing_value_is_named_without_counting_values():
    with pytest.raises(MidwayError, match=r"^--first-seed: no value; give it \(midway rate --help"):
        parse(rate, ["--first-seed"], prog="midway rate")
