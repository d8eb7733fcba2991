"""The site of the documentation has every page once; `make docs` checks links and names."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]


def pages(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for inner in entry.values() if isinstance(entry, dict) else entry:
            yield from pages(inner)


def test_the_navigation_has_every_page_once():
    listed = [*pages(PROJECT["nav"])]
    docs = ROOT / "docs"
    assert sorted(listed) == sorted(str(path.relative_to(docs)) for path in docs.rglob("*.md"))


def test_warnings_are_errors_and_fonts_come_from_no_other_server():
    assert PROJECT["strict"] is True
    assert PROJECT["theme"]["font"] is False
    assert "zensical build --strict" in (ROOT / "Makefile").read_text()


def test_examples_of_docstrings_are_shown_as_code():
    # mkdocstrings renders a section "Example:" as a note, in which `>>>` are quotations.
    sources = (ROOT / "src").rglob("*.py")
    assert not [path.name for path in sources if "  Example:\n" in path.read_text()]
