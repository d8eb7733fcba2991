"""The report: one valid, self-contained file, whole or absent."""

import re
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from midway.analysis.report import Report

VOID = {"meta", "img", "source"}
NASTY = """<script>alert("1 & 2")</script> $title {body} 'é'"""


class Reader(HTMLParser):
    """Collects tags, attributes and text, and fails where tags do not balance."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1], data))


def picture(width: float) -> Figure:
    figure = Figure(figsize=(width, 1), dpi=50)
    figure.add_axes((0, 0, 0.5, 1)).imshow(np.zeros((5, 10)), cmap="gray", vmin=0, aspect="auto")
    figure.text(0.6, 0.5, "words")
    return figure


@pytest.fixture
def page(tmp_path: Path) -> str:
    report = Report(NASTY)
    report.heading(NASTY)
    report.paragraph(NASTY)
    report.table(["", NASTY], [[NASTY, 1.5], ["plain", NASTY]])
    report.code(NASTY)
    report.figure(picture, NASTY, f"seen: {NASTY}")
    report.write(tmp_path / "report.html")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_tags_balance_and_the_page_is_html5_in_utf_8(page):
    reader = Reader(page)
    assert page.startswith("<!DOCTYPE html>")
    assert reader.tags[0] == ("html", {"lang": "en"})
    assert ("meta", {"charset": "utf-8"}) in reader.tags


def test_all_text_reads_as_it_was_given(page):
    told = [tag for tag, text in Reader(page).texts if text == NASTY]
    assert told == ["title", "h1", "h2", "p", "th", "th", "td", "code", "figcaption"]


def test_the_page_needs_neither_scripts_nor_network(page):
    tags = Reader(page).tags
    assert not {tag for tag, _ in tags} & {"script", "link", "iframe"}
    sources = [value for _, attrs in tags for key, value in attrs.items() if key in {"src", "href"}]
    assert all(source.startswith("data:") for source in sources)
    assert not re.search(r"https?:|url\(|@import", page)


def png_of(source: str) -> Image.Image:
    prefix = "data:image/png;base64,"
    png = Image.open(BytesIO(b64decode(source.removeprefix(prefix), validate=True)))
    assert png.format == "PNG"
    return png


def test_a_picture_has_a_png_for_pages_and_one_for_phones_and_says_what_is_seen(page):
    tags = Reader(page).tags
    (image,) = [attrs for tag, attrs in tags if tag == "img"]
    (phone,) = [attrs for tag, attrs in tags if tag == "source"]
    assert image["alt"] == f"seen: {NASTY}"
    assert (image["width"], image["height"]) == ("768", "96")
    assert (phone["width"], phone["height"]) == ("355", "96")
    assert "max-width" in phone["media"]
    assert png_of(image["src"]).size == (400, 50)
    assert png_of(phone["srcset"]).size == (185, 50)


def test_a_picture_has_no_white_panel_and_letters_for_light_and_dark_pages(page):
    (image,) = [attrs for tag, attrs in Reader(page).tags if tag == "img"]
    pixels = np.asarray(png_of(image["src"]).convert("RGBA"))
    assert pixels[25, 100].tolist() == [0, 0, 0, 255]  # the image itself
    assert pixels[2, 300, 3] == 0
    letters = pixels[:, 200:][pixels[:, 200:, 3] > 200][:, :3]
    assert len(letters)
    assert 0.3 * 255 < letters.min() <= letters.max() < 0.6 * 255


def test_rows_and_columns_of_a_table_are_named(page):
    scopes = [attrs.get("scope") for tag, attrs in Reader(page).tags if tag == "th"]
    assert scopes == ["col", "col", "row", "row"]


def test_parts_come_in_the_order_they_were_added(tmp_path):
    report = Report("title")
    report.paragraph("first")
    report.heading("second")
    report.table(["third"], [["fourth"]])
    report.write(tmp_path / "report.html")
    texts = [text for _, text in Reader((tmp_path / "report.html").read_text()).texts]
    assert texts[-5:] == ["title", "first", "second", "third", "fourth"]


def test_an_earlier_report_stands_until_the_new_one_is_complete(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    Report("old").write(path)
    old = path.read_bytes()

    def fail(_file: int) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="disk full"):
            Report("new").write(path)
    assert path.read_bytes() == old
    Report("new").write(path)
    assert "new" in path.read_text()
    assert list(tmp_path.iterdir()) == [path]
