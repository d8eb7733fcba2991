"""Errors as one line: with the file, and without anything that a terminal interprets."""

import errno
import pickle

import pytest

from midway.data.clip import BadClipError
from midway.errors import MidwayError, one_line, printable


@pytest.mark.parametrize(
    ("error", "where", "line"),
    [
        (PermissionError(13, "Permission denied", "a.png"), "", "a.png: Permission denied"),
        (PermissionError(13, "Permission denied", b"a.png"), "b", "a.png: Permission denied"),
        (OSError(5, "Input/output error"), "a.png", "a.png: Input/output error"),
        (OSError("3 requested and\n1 written"), "", "3 requested and 1 written"),
        (TimeoutError(), "s3://x", "s3://x: TimeoutError"),
        (
            OSError(errno.ENOSPC, "No space left on device", "x.ckpt"),
            "",
            "x.ckpt: No space left on device; free some space or write elsewhere",
        ),
    ],
)
def test_an_error_is_one_line_with_its_file_and_a_remedy_where_there_is_one(error, where, line):
    assert one_line(error, where) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "Größe 3 \N{MULTIPLICATION SIGN} 2, 東京.mp4",
            "Größe 3 \N{MULTIPLICATION SIGN} 2, 東京.mp4",
        ),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[2J\x9b1m\x00", r"\x1b[2J\x9b1m\x00"),
        (b"caf\xe9.mp4".decode(errors="surrogateescape"), r"caf\xe9.mp4"),
        ("gpj.\u202egnp", r"gpj.\u202egnp"),
        ("a\u2028b", r"a\u2028b"),
    ],
)
def test_what_a_terminal_would_interpret_is_escaped(text, line):
    assert printable(text) == line
    assert printable(line) == line


def test_names_and_values_from_files_make_no_second_line_of_an_error():
    assert str(MidwayError("a\nb: is wrong")) == r"a\nb: is wrong"
    error = pickle.loads(pickle.dumps(BadClipError("\x1b[31m.mp4", "is red", "rename it")))
    assert str(error) == r"\x1b[31m.mp4: is red; rename it"
