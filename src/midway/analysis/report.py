"""A report in one HTML file that needs nothing else: no scripts, no network, pictures inside."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from string import Template

from matplotlib.figure import Figure

from midway.atomic import write_atomically

CSS_PIXELS_PER_INCH = 96

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --text: #1a1a1a; --quiet: #5c5c5c; --page: #fff; --line: #ddd; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e6e6; --quiet: #a3a3a3; --page: #161616; --line: #3a3a3a; }
}
body { margin: 0; background: var(--page); color: var(--text);
  font: 1rem/1.55 system-ui, sans-serif; }
main { max-width: 50rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 0.5rem; }
p { max-width: 42rem; }
figure { margin: 1.5rem 0; }
figcaption { margin-top: 0.5rem; color: var(--quiet); font-size: 0.9rem; }
.wide { overflow-x: auto; }
img { display: block; box-sizing: border-box; height: auto; max-width: max(100%, 40rem);
  padding: 0.25rem; border-radius: 0.25rem; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 1rem 0.35rem 0; border-bottom: 1px solid var(--line);
  text-align: right; }
th:first-child { text-align: left; font-weight: inherit; }
thead th { color: var(--quiet); font-weight: inherit; }
</style>
</head>
<body>
<main>
$body
</main>
</body>
</html>
""")


class Report:
    """A page that is put together from top to bottom, then written."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts = [f"<h1>{escape(title)}</h1>"]

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def paragraph(self, text: str) -> None:
        """Add plain text."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def table(self, header: Sequence[object], rows: Sequence[Sequence[object]]) -> None:
        """Add a table; the first cell of a row names it, the others are set flush right."""
        head = "".join(f'<th scope="col">{escape(str(cell))}</th>' for cell in header)
        body = "\n".join(
            f'<tr><th scope="row">{escape(str(name))}</th>'
            + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells)
            + "</tr>"
            for name, *cells in rows
        )
        self._parts.append(
            f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n'
            f"<tbody>\n{body}\n</tbody>\n</table></div>"
        )

    def figure(self, figure: Figure, caption: str) -> None:
        """Add a picture, as a PNG of the figure's own resolution, with its caption."""
        png = BytesIO()
        figure.savefig(png, format="png", dpi="figure")
        data = b64encode(png.getvalue()).decode()
        width, height = (round(CSS_PIXELS_PER_INCH * inches) for inches in figure.get_size_inches())
        self._parts.append(
            f'<figure>\n<div class="wide"><img width="{width}" height="{height}" '
            f'alt="{escape(caption)}" src="data:image/png;base64,{data}"></div>\n'
            f"<figcaption>{escape(caption)}</figcaption>\n</figure>"
        )

    def write(self, path: Path) -> None:
        """Write the file, complete or not at all; one that has the name is replaced."""
        page = PAGE.substitute(title=escape(self._title), body="\n".join(self._parts))
        write_atomically(path, lambda file: file.write(page.encode()))
