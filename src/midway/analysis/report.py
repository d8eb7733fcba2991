"""Self-contained HTML reports: one file with embedded pictures and no scripts."""

from base64 import b64encode
from collections.abc import Callable, Sequence
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined

from midway.atomic import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CSS_PIXELS_PER_INCH = 96
"""Display resolution of figures, as defined by CSS."""
PAGE_INCHES, PHONE_INCHES = 8.0, 3.7
"""Widths of a figure: for a page, and for screens of less than 40 rem."""
TEMPLATE = "report.html.jinja"
"""Jinja template of the page, in this package."""


class Report:
    """HTML page that is assembled from top to bottom and then written.

    Args:
        title: Title of the page.

    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[dict[str, object]] = []

    def heading(self, text: str) -> None:
        """Start a section."""
        self._parts.append({"kind": "heading", "text": text})

    def paragraph(self, text: str) -> None:
        """Add a paragraph of plain text; HTML in it is escaped."""
        self._parts.append({"kind": "paragraph", "text": text})

    def code(self, text: str) -> None:
        """Add a block of code or commands."""
        self._parts.append({"kind": "code", "text": text})

    def table(self, header: Sequence[object], rows: Sequence[Sequence[object]]) -> None:
        """Add a table; the first column contains row names, the others are right-aligned."""
        self._parts.append({"kind": "table", "header": header, "rows": rows})

    def figure(self, draw: Callable[[float], "Figure"], caption: str, alt: str) -> None:
        """Add a figure with a caption, embedded as PNGs for a page and for a phone.

        Args:
            draw: Function that draws the figure in a width in inches.
            caption: Text below the figure.
            alt: Description of what is seen, for readers who do not see it.

        """
        sizes = {"page": PAGE_INCHES, "phone": PHONE_INCHES}
        pictures = {name: _embedded(draw(inches)) for name, inches in sizes.items()}
        self._parts.append({"kind": "figure", "caption": caption, "alt": alt, **pictures})

    def write(self, path: Path) -> None:
        """Write the page atomically; an existing file is replaced."""
        environment = Environment(
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        source = files("midway.analysis").joinpath(TEMPLATE).read_text(encoding="utf-8")
        page = environment.from_string(source).render(title=self._title, parts=self._parts)
        write_text(path, page)


def _embedded(figure: "Figure") -> dict[str, object]:
    """Return a figure as base64 and its size in CSS pixels; it suits light and dark pages."""
    # Imported only here, because matplotlib takes a third of a second.
    from midway.analysis.panels import for_any_page

    for_any_page(figure)
    png = BytesIO()
    figure.savefig(png, format="png", dpi="figure")
    width, height = (round(CSS_PIXELS_PER_INCH * inches) for inches in figure.get_size_inches())
    return {"png": b64encode(png.getvalue()).decode(), "width": width, "height": height}
