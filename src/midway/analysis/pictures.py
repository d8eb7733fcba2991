"""Matplotlib figures of runs and networks: loss curves, crops, segmentation, flow and heatmaps.

A row of a figure is an example, a column a kind of image or a network. Figures are created without
pyplot, so they need no backend, open no window, and are freed with their last reference.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray
from torch import Tensor

from midway.data.flow.colours import flow_to_rgb, longest_pixels
from midway.errors import MidwayError
from midway.nn.images import IMAGENET_MEAN, IMAGENET_STD

Array = NDArray[Any] | Tensor
"""NumPy array, or tensor on the CPU."""

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "image.interpolation": "nearest",
    "legend.frameon": False,
}
DPI = 192
WIDTH_INCHES = 8.0
MAX_PANEL_INCHES = 2.0
GAP_INCHES = 0.05
LINE_INCHES = 0.17

# Okabe and Ito's palette for colour-blind readers; black is reserved for unlabelled pixels.
CLASS_COLOURS = (
    *("#BBBBBB", "#E69F00", "#56B4E9", "#009E73"),
    *("#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
)
CHOSEN_PATCH = {"fill": False, "edgecolor": "#00E000", "linewidth": 1.5}
TRUE_PLACE: dict[str, Any] = {
    "marker": "o",
    "markersize": 7,
    "markerfacecolor": "none",
    "markeredgecolor": "#00BFFF",
    "markeredgewidth": 1.5,
    "linestyle": "none",
}
CROPS_SHOWN = 2
"""Maximum number of crops shown per view and frame: all motion and global crops, and some local
crops."""


@rc_context(STYLE)
def loss_curves(records: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot the loss with its two terms, and the dense loss of each level, over the steps of a run.

    Args:
        records: Lines of the run's ``metrics.jsonl``; a value of None leaves a gap. For a run
            without the DINO term, only the dense loss is plotted.

    """
    figure = Figure(figsize=(WIDTH_INCHES, 2.6), dpi=DPI, layout="constrained")
    terms, by_level = figure.subplots(1, 2)
    if "dino_loss" in records[0]:
        style = {"color": "#0072B2", "linestyle": "--"}
        _curve(terms, records, "loss", label="total", color="black")
        _curve(terms, records, "dino_loss", label="invariance (DINO)", **style)
    _curve(terms, records, "dense_loss", label="dense", color="#D55E00", linestyle="-.")
    prefix = "dense_loss_"
    levels = sorted(int(name.removeprefix(prefix)) for name in records[0] if prefix in name)
    colours = colormaps["viridis"](np.linspace(0, 0.85, len(levels)))
    for level, colour in zip(levels, colours, strict=True):
        _curve(by_level, records, f"{prefix}{level}", label=f"level {level}", color=colour)
    for axes, name in ((terms, "loss"), (by_level, "dense loss of each level")):
        axes.set(xlabel="step", ylabel=name)
        axes.legend(handlelength=2.5)
    return figure


@rc_context(STYLE)
def gate_curves(seconds: Sequence[float], means: Mapping[int, Array]) -> Figure:
    """Plot mean gates over a video, with one panel per level and one line per block.

    Args:
        seconds: Timestamp of the source of each pair.
        means: Mean gates (pairs, blocks) of each level; the blocks are 2, 3 and so on.

    """
    figure = Figure(figsize=(WIDTH_INCHES, 2.2), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, len(means), sharey=True, squeeze=False)[0]
    for axes, (level, of_level) in zip(panels, means.items(), strict=True):
        lines = np.asarray(of_level).T
        colours = colormaps["viridis"](np.linspace(0, 0.85, len(lines)))
        for block, (line, colour) in enumerate(zip(lines, colours, strict=True), start=2):
            axes.plot(seconds, line, color=colour, linewidth=1.2, label=f"block {block}")
        axes.set(title=f"level {level}", xlabel="seconds")
    panels[0].set_ylabel("mean gate")
    panels[-1].legend()
    return figure


def _curve(axes: Axes, records: Sequence[Mapping[str, Any]], key: str, **style: Any) -> None:
    values = np.array([record[key] for record in records], float)
    axes.plot([record["step"] for record in records], values, linewidth=1.2, **style)


@rc_context(STYLE)
def crops(views: Mapping[str, Tensor], samples: int) -> Figure:
    """Draw the augmented views of the first samples of a batch, all in one scale.

    Args:
        views: ImageNet-normalised views by name, of shape (frames, crops, batch, 3, height, width);
            the first two crops of each frame are shown.
        samples: Number of samples, the rows of the figure.

    """
    stacks = {
        f"{name}{f' {number}' if len(crops) > 1 else ''}\n{_frame_name(frame, len(view))}": stack
        for name, view in views.items()
        for frame, crops in enumerate(view)
        for number, stack in enumerate(crops[:CROPS_SHOWN], start=1)
    }
    figure, _ = _panels({caption: _rgb(stack[:samples]) for caption, stack in stacks.items()})
    return figure


def _frame_name(frame: int, num_frames: int) -> str:
    return ("source", "target")[frame] if num_frames == 2 else f"frame {frame + 1}"


def _rgb(images: Tensor) -> NDArray[np.uint8]:
    """Convert ImageNet-normalised images (N, 3, H, W) to bytes (N, H, W, 3)."""
    pixels = images.detach().float().cpu().permute(0, 2, 3, 1).numpy()
    pixels = pixels * np.array(IMAGENET_STD) + np.array(IMAGENET_MEAN)
    return np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)


@rc_context(STYLE)
def segmentation(
    images: Array, truth: Array, predictions: Mapping[str, Array], class_names: Sequence[str]
) -> Figure:
    """Draw images beside their true and predicted classes.

    Args:
        images: RGB bytes (N, H, W, 3).
        truth: Class ids below 256, of shape (N, H, W); ids without a class are black.
        predictions: Class ids of each network, of the same shape.
        class_names: At most 8, the index being the class id.

    Raises:
        MidwayError: There are more classes than colours.

    """
    if len(class_names) > len(CLASS_COLOURS):
        raise MidwayError(
            f"segmentation picture: {len(class_names)} classes cannot be distinguished by colour; "
            f"give at most {len(CLASS_COLOURS)}"
        )
    named_colours = dict(zip(class_names, CLASS_COLOURS, strict=False))
    lookup = np.zeros((256, 3), np.uint8)
    lookup[: len(class_names)] = [
        np.rint(255 * np.array(to_rgb(c))) for c in named_colours.values()
    ]
    classes = {"truth": truth, **predictions}
    coloured = {name: lookup[np.asarray(ids)] for name, ids in classes.items()}
    figure, _ = _panels({"image": np.asarray(images), **coloured}, footer_lines=1.5)
    _legend(figure, [Patch(color=colour, label=name) for name, colour in named_colours.items()])
    return figure


@rc_context(STYLE)
def flow(sources: Array, targets: Array, truth: Array, predictions: Mapping[str, Array]) -> Figure:
    """Draw pairs beside their true and predicted flow, with direction as hue, length as saturation.

    Full saturation is the longest true motion of the row, which is written at its left.

    Args:
        sources: RGB bytes (N, H, W, 3).
        targets: RGB bytes of the same shape.
        truth: Flow in pixels, of shape (N, H, W, 2), or (N, rows, columns, 2) for patches.
        predictions: Flow of each network, in either shape.

    """
    longest = [longest_pixels(np.asarray(each)) for each in truth]
    columns = {"source": np.asarray(sources), "target": np.asarray(targets)}
    for name, flows in {"true flow": truth, **predictions}.items():
        colours = map(flow_to_rgb, np.asarray(flows), longest)
        columns[name] = _enlarge(np.stack(list(colours)), sources.shape[1:3])
    figure, grid = _panels(columns, left_lines=1, footer_lines=4)
    for axes, pixels in zip(grid[:, 0], longest, strict=True):
        axes.set_ylabel(f"max {pixels:.1f} px")
    _add_wheel(figure)
    return figure


def _add_wheel(figure: Figure) -> None:
    """Draw the colour wheel of flow in the footer."""
    x, y = np.meshgrid(*[np.linspace(-1, 1, 201)] * 2)
    disc = flow_to_rgb(np.stack([x, y], axis=-1), 1)
    opacity = 255 * (np.hypot(x, y) <= 1).astype(np.uint8)
    width, height = figure.get_size_inches()
    size = 3.2 * LINE_INCHES
    box = (0.5 - 2 / width, 0.4 * LINE_INCHES / height, size / width, size / height)
    axes = figure.add_axes(box, label="wheel")
    axes.imshow(np.dstack([disc, opacity]))
    axes.set_axis_off()
    text = (
        "Direction and length of motion, from the centre of the wheel.\n"
        "The rim is the length at the left of the row."
    )
    axes.text(1.2, 0.5, text, transform=axes.transAxes, va="center", linespacing=1.4)


@rc_context(STYLE)
def heatmaps(
    sources: Array,
    targets: Array,
    points: Array,
    maps: Mapping[str, Array],
    true_points: Array | None = None,
) -> Figure:
    """Draw perturbation heatmaps over the target images (sec. 4.4, figure 6).

    Colours range from cosine 0 to the maximum of the map, which is written below it.

    Args:
        sources: RGB bytes (N, H, W, 3).
        targets: RGB bytes of the same shape.
        points: Column x and row y of a pixel in the perturbed patch, (N, 2).
        maps: Cosines (N, rows, columns) of each network or level.
        true_points: Ground-truth positions of the points in the target, (N, 2); None if unknown.

    """
    size, patches = sources.shape[1:3], next(iter(maps.values())).shape[1:]
    grey = np.asarray(targets).mean(-1, keepdims=True).repeat(3, -1).astype(np.uint8)
    columns = {"source": np.asarray(sources), **{f"target, {name}": grey for name in maps}}
    figure, grid = _panels(columns, below_lines=1, footer_lines=1.5)
    for column, heat in enumerate(maps.values(), start=1):
        for axes, each in zip(grid[:, column], np.asarray(heat), strict=True):
            _overlay(axes, each, size)
    for row, point in zip(grid, np.asarray(points), strict=True):
        for axes in row:
            axes.add_patch(_chosen_patch(point, size[1] / patches[1], size[0] / patches[0]))
    marks: list[Any] = [Patch(**CHOSEN_PATCH, label="perturbed patch")]
    if true_points is not None:
        for row, true_point in zip(grid, np.asarray(true_points), strict=True):
            for axes in row[1:]:
                axes.plot(*true_point, **TRUE_PLACE, scalex=False, scaley=False)
        marks.append(Line2D([], [], **TRUE_PLACE, label="true position in the target"))
    _legend(figure, marks)
    return figure


def _overlay(axes: Axes, heat: NDArray[Any], size: Sequence[int]) -> None:
    """Draw a heatmap over an image of `size`, with opacity proportional to the value."""
    highest = float(heat.max())
    enlarged = _enlarge(heat[None], size)[0]
    share = np.clip(enlarged / max(highest, 1e-12), 0, 1)
    axes.imshow(enlarged, cmap="inferno", alpha=0.85 * share, vmin=0, vmax=max(highest, 1e-12))
    axes.set_xlabel(f"maximum cosine {highest:.2f}", labelpad=2, color="#555555")


def _chosen_patch(point: NDArray[Any], width: float, height: float) -> Rectangle:
    """Return the border of the patch of `width` x `height` pixels that contains a point."""
    corner = np.floor((point + 0.5) / (width, height)) * (width, height) - 0.5
    return Rectangle(tuple(corner), width, height, **CHOSEN_PATCH)


def _enlarge(patches: NDArray[Any], size: Sequence[int]) -> NDArray[Any]:
    """Upsample patches (N, rows, columns, ...) to `size` (H, W) by nearest neighbour."""
    rows, columns = (
        np.arange(length) * count // length
        for length, count in zip(size, patches.shape[1:3], strict=True)
    )
    return patches[:, rows[:, None], columns]


def _legend(figure: Figure, handles: Sequence[Patch | Line2D]) -> None:
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), handlelength=1)


def _panels(
    columns: Mapping[str, NDArray[np.uint8]],
    *,
    left_lines: float = 0,
    below_lines: float = 0,
    footer_lines: float = 0,
) -> tuple[Figure, NDArray[Any]]:
    """Create a figure with a grid of images, and a caption above each column.

    Args:
        columns: Images (N, H, W, 3) by caption; columns of different sizes share one scale.
        left_lines: Space at the left of each row, in lines of text.
        below_lines: Space below each row, in lines of text.
        footer_lines: Space below the grid, in lines of text.

    Returns:
        The figure, and its axes of shape (rows, columns).

    """
    num_rows = len(next(iter(columns.values())))
    heights, widths = zip(*(images.shape[1:3] for images in columns.values()), strict=True)
    left = GAP_INCHES + left_lines * LINE_INCHES
    top = GAP_INCHES + (1 + next(iter(columns)).count("\n")) * LINE_INCHES
    bottom = GAP_INCHES + footer_lines * LINE_INCHES
    gaps = len(widths) * GAP_INCHES
    scale = min((WIDTH_INCHES - left - gaps) / sum(widths), MAX_PANEL_INCHES / max(widths))
    row, below = scale * max(heights), below_lines * LINE_INCHES
    width = left + scale * sum(widths) + gaps
    height = top + num_rows * (row + below + GAP_INCHES) - GAP_INCHES + bottom
    figure = Figure(figsize=(width, height), dpi=DPI)
    grid = figure.subplots(
        num_rows,
        len(widths),
        squeeze=False,
        width_ratios=widths,
        gridspec_kw={
            "left": left / width,
            "right": 1 - GAP_INCHES / width,
            "bottom": (bottom + below) / height,
            "top": 1 - top / height,
            "wspace": GAP_INCHES * len(widths) / (scale * sum(widths)),
            "hspace": (GAP_INCHES + below) / row,
        },
    )
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[], anchor="N")
        axes.spines[:].set_visible(False)
    for column, (caption, images) in zip(grid.T, columns.items(), strict=True):
        column[0].set_title(caption, pad=3)
        for axes, image in zip(column, images, strict=True):
            axes.imshow(image)
    return figure, grid
