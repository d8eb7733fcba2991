"""Matplotlib grids of labelled panels, with legends, colour bars and the colour wheel of flow.

A row of a grid is an example, a column a kind of image or a network. Figures are created without
pyplot, so they need no backend, open no window, and are freed with their last reference.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from numpy.typing import NDArray

from midway.data.flow.colours import flow_to_rgb

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "image.interpolation": "nearest",
    "legend.frameon": False,
}
DPI = 192
WIDTH_INCHES = 8.0
"""Width of a figure for a page; `Report` also draws figures of half this width, for phones."""
MAX_PANEL_INCHES, MIN_PANEL_INCHES = 3.2, 0.6
"""Bounds of the width of a panel; many columns make a figure wider rather than illegible."""
GAP_INCHES = 0.06
LINE_INCHES = 0.2
"""Height of a line of text."""
LETTER_INCHES = 0.08
"""Mean width of a letter."""
SMALLEST_SHARE = 0.65
"""Smallest letters of a caption that does not fit, as a share of the usual ones."""
BAR_LINES = 1.7
"""Height of a colour bar with its ticks, in lines of text."""
ANY_PAGE = "#767676"
"""Grey that is legible on white and on black."""


def panels(
    columns: Mapping[str, NDArray[np.uint8]],
    *,
    width: float = WIDTH_INCHES,
    rows: Sequence[str] = (),
    below_lines: float = 0,
    footer_lines: float = 0,
    marks: Sequence[Patch | Line2D] = (),
) -> tuple[Figure, NDArray[Any]]:
    """Create a figure with a grid of images, a caption above each column and names of the rows.

    Args:
        columns: Images (N, H, W, 3) by caption; columns of different sizes share one scale.
        width: Largest width of the figure in inches, unless that makes panels too small.
        rows: Names of the N rows, at their left; none by default.
        below_lines: Space below each row, in lines of text.
        footer_lines: Space below the grid, in lines of text.
        marks: Entries of a legend below the grid.

    Returns:
        The figure, and its axes of shape (rows, columns).

    """
    num_rows = len(next(iter(columns.values())))
    heights, widths = zip(*(images.shape[1:3] for images in columns.values()), strict=True)
    left = GAP_INCHES + (LINE_INCHES if rows else 0)
    gaps = len(widths) * GAP_INCHES
    scale = min((width - left - gaps) / sum(widths), MAX_PANEL_INCHES / max(widths))
    scale = max(scale, MIN_PANEL_INCHES / max(widths))
    full_width = left + scale * sum(widths) + gaps
    top = GAP_INCHES + max(1 + caption.count("\n") for caption in columns) * LINE_INCHES
    legend_columns, legend_lines = _legend_size(marks, full_width)
    bottom = GAP_INCHES + (footer_lines + legend_lines) * LINE_INCHES
    row, below = scale * max(heights), below_lines * LINE_INCHES
    height = top + num_rows * (row + below + GAP_INCHES) - GAP_INCHES + bottom
    figure = Figure(figsize=(full_width, height), dpi=DPI)
    margins = {
        "left": left / full_width,
        "right": 1 - GAP_INCHES / full_width,
        "bottom": (bottom + below) / height,
        "top": 1 - top / height,
        "wspace": GAP_INCHES * len(widths) / (scale * sum(widths)),
        "hspace": (GAP_INCHES + below) / row,
    }
    size = (num_rows, len(widths))
    grid = figure.subplots(*size, squeeze=False, width_ratios=widths, gridspec_kw=margins)
    share = min(_share(caption, scale * w) for caption, w in zip(columns, widths, strict=True))
    for column, (caption, images) in zip(grid.T, columns.items(), strict=True):
        _draw_column(column, images)
        room = round(scale * images.shape[2] / (LETTER_INCHES * share))
        text = "\n".join(_shortened(line, room) for line in caption.split("\n"))
        column[0].set_title(text, pad=3, fontsize=share * STYLE["axes.titlesize"])
    for axes, name in zip(grid[:, 0], rows, strict=bool(rows)):
        share = min(1.0, row / (LETTER_INCHES * len(name)))
        axes.set_ylabel(name, labelpad=2, fontsize=share * STYLE["font.size"])
    if marks:
        style = {"ncols": legend_columns, "handlelength": 1, "columnspacing": 1.2}
        figure.legend(handles=[*marks], loc="lower center", **style)
    return figure, grid


def _draw_column(column: NDArray[Any], images: NDArray[np.uint8]) -> None:
    for axes, image in zip(column, images, strict=True):
        axes.imshow(image)
        axes.set(xticks=[], yticks=[], anchor="N")
        axes.spines[:].set_visible(False)


def _share(caption: str, inches: float) -> float:
    """Return the size of letters that lets a caption fit, as a share of the usual size."""
    longest = LETTER_INCHES * max(map(len, caption.split("\n")))
    return max(SMALLEST_SHARE, min(1.0, inches / longest))


def _shortened(line: str, letters: int) -> str:
    """Leave out the middle of a line that is longer than `letters`."""
    if len(line) <= letters:
        return line
    kept = max(letters - 1, 4)
    return f"{line[: kept // 2]}\N{HORIZONTAL ELLIPSIS}{line[kept // 2 - kept :]}"


def _legend_size(marks: Sequence[Patch | Line2D], width: float) -> tuple[int, float]:
    """Return the columns of a legend in a figure of this width, and its height in lines of text."""
    if not marks:
        return 0, 0.0
    entry = 0.35 + LETTER_INCHES * max(len(str(mark.get_label())) for mark in marks)
    columns = max(1, min(len(marks), int(width / entry)))
    return columns, 0.8 + 1.1 * -(-len(marks) // columns)


def colour_bar(figure: Figure, axes: Axes, highest: float, colours: str, name: str) -> None:
    """Add a horizontal colour bar from 0 to `highest` below a panel, with the quantity's name."""
    height = figure.get_size_inches()[1]
    box = axes.get_position()
    thickness, gap = 0.07 / height, 0.05 / height
    bar = figure.add_axes(
        (box.x0 + 0.1 * box.width, box.y0 - gap - thickness, 0.8 * box.width, thickness),
        label="colour bar",
    )
    scale = ScalarMappable(Normalize(0, highest), colours)
    drawn = figure.colorbar(scale, cax=bar, orientation="horizontal")
    drawn.set_ticks([0, highest / 2, highest], labels=["0", name, f"{highest:.2f}"])
    drawn.ax.tick_params(length=0, pad=1.5, labelsize=9)
    drawn.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def wheel(figure: Figure, text: str) -> None:
    """Draw the colour wheel of flow in a footer of four lines, with an explanation beside it."""
    x, y = np.meshgrid(*[np.linspace(-1, 1, 201)] * 2)
    disc = flow_to_rgb(np.stack([x, y], axis=-1), 1)
    opacity = 255 * (np.hypot(x, y) <= 1).astype(np.uint8)
    width, height = figure.get_size_inches()
    size = 3.2 * LINE_INCHES
    whole = size * 1.2 + LETTER_INCHES * max(map(len, text.splitlines()))
    left = max(GAP_INCHES, (width - whole) / 2) / width
    box = (left, 0.4 * LINE_INCHES / height, size / width, size / height)
    axes = figure.add_axes(box, label="wheel")
    axes.imshow(np.dstack([disc, opacity]), interpolation="bilinear")
    axes.set_axis_off()
    axes.text(1.2, 0.5, text, transform=axes.transAxes, va="center", linespacing=1.4)


def for_any_page(figure: Figure) -> None:
    """Make a figure transparent, with text and axes that are legible on light and dark pages."""
    figure.set_facecolor("none")
    for axes in figure.axes:
        axes.set_facecolor("none")
        axes.tick_params(color=ANY_PAGE)
        axes.spines[:].set_edgecolor(ANY_PAGE)
    for text in figure.findobj(Text):
        text.set_color(ANY_PAGE)  # pyright: ignore[reportAttributeAccessIssue]
