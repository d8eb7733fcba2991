"""Matplotlib figures of runs and networks: loss curves, crops, segmentation, flow and heatmaps.

Each takes the `width` of the figure in inches, so that a report can have one for phones.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from midway.analysis.panels import (
    BAR_LINES,
    DPI,
    STYLE,
    WIDTH_INCHES,
    colour_bar,
    panels,
    wheel,
)
from midway.data.flow.colours import flow_to_rgb, longest_pixels
from midway.errors import MidwayError
from midway.nn.images import IMAGENET_MEAN, IMAGENET_STD

Array = NDArray[Any] | Tensor
"""NumPy array, or tensor on the CPU."""

NARROW_INCHES = 5.0
"""Width below which two plots stand below each other."""
# Okabe and Ito's palette for colour-blind readers; black is reserved for unlabelled pixels.
CLASS_COLOURS = (
    *("#BBBBBB", "#E69F00", "#56B4E9", "#009E73"),
    *("#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
)
CURVE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Colours of lines that are legible on light and dark pages."""
HEAT_COLOURS = "inferno"
CHOSEN_PATCH: dict[str, Any] = {"fill": False, "edgecolor": "#00E000", "linewidth": 1.5}
SAME_PLACE: dict[str, Any] = {**CHOSEN_PATCH, "linestyle": (0, (2, 1.5)), "linewidth": 1.0}
HOTTEST: dict[str, Any] = {
    "marker": "+",
    "markersize": 7,
    "markeredgecolor": "white",
    "markeredgewidth": 1.4,
    "linestyle": "none",
    "path_effects": [Stroke(linewidth=2.8, foreground="black"), Normal()],
}
TRUE_PLACE: dict[str, Any] = {
    "marker": "o",
    "markersize": 9,
    "markerfacecolor": "none",
    "markeredgecolor": "#00BFFF",
    "markeredgewidth": 1.8,
    "linestyle": "none",
}
CROPS_SHOWN = 2
"""Maximum number of crops shown per view and frame: all motion and global crops, and some local
crops."""


@rc_context(STYLE)
def loss_curves(records: Sequence[Mapping[str, Any]], *, width: float = WIDTH_INCHES) -> Figure:
    """Plot the loss with its two terms, and the dense loss of each level, over the steps of a run.

    Args:
        records: Lines of the run's ``metrics.jsonl``; a value of None leaves a gap. For a run
            without the DINO term, only the dense loss is plotted.
        width: Width of the figure in inches.

    """
    terms, by_level = _plots(2, width)
    if "dino_loss" in records[0]:
        style = {"color": "#0072B2", "linestyle": "--"}
        _curve(terms, records, "loss", label="total", color="#CC79A7")
        _curve(terms, records, "dino_loss", label="invariance (DINO)", **style)
    _curve(terms, records, "dense_loss", label="dense", color="#D55E00", linestyle="-.")
    prefix = "dense_loss_"
    levels = sorted(int(name.removeprefix(prefix)) for name in records[0] if prefix in name)
    for number, level in enumerate(levels):
        colour = CURVE_COLOURS[number % len(CURVE_COLOURS)]
        _curve(by_level, records, f"{prefix}{level}", label=f"level {level}", color=colour)
    for axes, name in ((terms, "loss"), (by_level, "dense loss of each level")):
        axes.set(xlabel="step", ylabel=name)
        axes.legend(handlelength=2.5)
    figure = terms.figure
    assert isinstance(figure, Figure)
    return figure


@rc_context(STYLE)
def gate_curves(
    seconds: Sequence[float], means: Mapping[int, Array], *, width: float = WIDTH_INCHES
) -> Figure:
    """Plot mean gates over a video, with one panel per level and one line per block.

    Args:
        seconds: Timestamp of the source of each pair.
        means: Mean gates (pairs, blocks) of each level; the blocks are 2, 3 and so on.
        width: Width of the figure in inches.

    """
    plots = _plots(len(means), width, sharey=True)
    for axes, (level, of_level) in zip(plots, means.items(), strict=True):
        lines = np.asarray(of_level).T
        colours = colormaps["viridis"](np.linspace(0.1, 0.85, len(lines)))
        for block, (line, colour) in enumerate(zip(lines, colours, strict=True), start=2):
            axes.plot(seconds, line, color=colour, linewidth=1.2, label=f"block {block}")
        axes.set(title=f"level {level}", xlabel="seconds")
    plots[0].set_ylabel("mean gate")
    plots[-1].legend()
    figure = plots[0].figure
    assert isinstance(figure, Figure)
    return figure


def _plots(count: int, width: float, **shared: Any) -> list[Axes]:
    """Create plots side by side, or below each other in a narrow figure."""
    narrow = width < NARROW_INCHES
    size = (width, 2.6 * count if narrow else 2.8)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    shape = (count, 1) if narrow else (1, count)
    return [*figure.subplots(*shape, squeeze=False, **shared).flat]


def _curve(axes: Axes, records: Sequence[Mapping[str, Any]], key: str, **style: Any) -> None:
    values = np.array([record[key] for record in records], float)
    axes.plot([record["step"] for record in records], values, linewidth=1.4, **style)


@rc_context(STYLE)
def crops(views: Mapping[str, Tensor], samples: int, *, width: float = WIDTH_INCHES) -> Figure:
    """Draw the augmented views of the first samples of a batch, all in one scale.

    Args:
        views: ImageNet-normalised views by name, of shape (frames, crops, batch, 3, height, width);
            the first two crops of each frame are shown.
        samples: Number of samples, the rows of the figure.
        width: Width of the figure in inches.

    """
    stacks = {
        f"{name}{f' {number}' if len(crops) > 1 else ''}\n{_frame_name(frame, len(view))}": stack
        for name, view in views.items()
        for frame, crops in enumerate(view)
        for number, stack in enumerate(crops[:CROPS_SHOWN], start=1)
    }
    rgb = {caption: to_bytes(stack[:samples]) for caption, stack in stacks.items()}
    figure, _ = panels(rgb, width=width)
    return figure


def _frame_name(frame: int, num_frames: int) -> str:
    return ("source", "target")[frame] if num_frames == 2 else f"frame {frame + 1}"


def to_bytes(images: Tensor) -> NDArray[np.uint8]:
    """Convert ImageNet-normalised images (N, 3, H, W) to bytes (N, H, W, 3)."""
    pixels = images.detach().float().cpu().permute(0, 2, 3, 1).numpy()
    pixels = pixels * np.array(IMAGENET_STD) + np.array(IMAGENET_MEAN)
    return np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)


@rc_context(STYLE)
def segmentation(
    images: Array,
    truth: Array,
    predictions: Mapping[str, Array],
    class_names: Sequence[str],
    *,
    width: float = WIDTH_INCHES,
) -> Figure:
    """Draw images beside their true and predicted classes.

    Args:
        images: RGB bytes (N, H, W, 3).
        truth: Class ids below 256, of shape (N, H, W); ids without a class are black.
        predictions: Class ids of each network, of the same shape.
        class_names: At most 8, the index being the class id.
        width: Width of the figure in inches.

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
    marks = [Patch(color=colour, label=name) for name, colour in named_colours.items()]
    figure, _ = panels({"image": np.asarray(images), **coloured}, width=width, marks=marks)
    return figure


@rc_context(STYLE)
def flow(
    sources: Array,
    targets: Array,
    flows: Mapping[str, Array],
    *,
    max_pixels: float = 0.0,
    width: float = WIDTH_INCHES,
) -> Figure:
    """Draw pairs beside their flow, with direction as hue, length as saturation.

    Full saturation is the longest motion of the row's first flow, which is written at its left.

    Args:
        sources: RGB bytes (N, H, W, 3).
        targets: RGB bytes of the same shape.
        flows: Flow in pixels by caption, such as the true one and those of networks, of shape
            (N, H, W, 2), or (N, rows, columns, 2) for patches.
        max_pixels: Motion in full saturation, in pixels; 0 for the longest of each row.
        width: Width of the figure in inches.

    """
    first = np.asarray(next(iter(flows.values())))
    longest = [max_pixels or longest_pixels(each) for each in first]
    columns = {"source": np.asarray(sources), "target": np.asarray(targets)}
    for name, each in flows.items():
        colours = map(flow_to_rgb, np.asarray(each), longest)
        columns[name] = _enlarge(np.stack(list(colours)), sources.shape[1:3])
    rows = [f"{pixels:.1f} px" for pixels in longest]
    figure, grid = panels(columns, width=width, rows=rows, footer_lines=4)
    for axes in grid[:, 2:].flat:
        # Without a border, a panel without motion would vanish on a white page.
        axes.spines[:].set(visible=True, edgecolor="#BBBBBB")
    text = "Hue is the direction of motion,\nsaturation its length; white is none,\n"
    wheel(figure, f"{text}the rim is the length left of the row.")
    return figure


@rc_context(STYLE)
def heatmaps(
    sources: Array,
    targets: Array,
    points: Array,
    maps: Mapping[str, Array],
    true_points: Array | None = None,
    *,
    width: float = WIDTH_INCHES,
) -> Figure:
    """Draw perturbation heatmaps over the target images (sec. 4.4, figure 6).

    Maps are upsampled by bicubic interpolation. Colours range from cosine 0 to the maximum of the
    map; the colour bar below it shows the range.

    Args:
        sources: RGB bytes (N, H, W, 3).
        targets: RGB bytes of the same shape.
        points: Column x and row y of a pixel in the perturbed patch, (N, 2).
        maps: Cosines (N, rows, columns) of each network or level, by caption; grids may differ.
        true_points: Ground-truth positions of the points in the target, (N, 2); None if unknown.
        width: Width of the figure in inches.

    """
    size, places = sources.shape[1:3], np.asarray(points)
    grey = np.asarray(targets).mean(-1, keepdims=True).repeat(3, -1).astype(np.uint8)
    columns = {"source": np.asarray(sources), **dict.fromkeys(maps, grey)}
    marks: list[Any] = [
        Patch(**CHOSEN_PATCH, label="perturbed patch"),
        Patch(**SAME_PLACE, label="its place in the target"),
        Line2D([], [], **HOTTEST, label="hottest patch"),
    ]
    if true_points is not None:
        marks.append(Line2D([], [], **TRUE_PLACE, label="true place in the target"))
    figure, grid = panels(columns, width=width, below_lines=BAR_LINES, marks=marks)
    for column, heat in enumerate(maps.values(), start=1):
        patch = np.array(size[::-1]) / heat.shape[:0:-1]  # width, height in pixels
        for axes, each, point in zip(grid[:, column], np.asarray(heat), places, strict=True):
            highest = _overlay(axes, each, size, patch)
            colour_bar(figure, axes, highest, HEAT_COLOURS, "cosine")
            axes.add_patch(_border(point, patch, SAME_PLACE))
    first = np.array(size[::-1]) / next(iter(maps.values())).shape[:0:-1]
    for axes, point in zip(grid[:, 0], places, strict=True):
        axes.add_patch(_border(point, first, CHOSEN_PATCH))
    if true_points is not None:
        for row, true_point in zip(grid, np.asarray(true_points), strict=True):
            for axes in row[1:]:
                axes.plot(*true_point, **TRUE_PLACE, scalex=False, scaley=False)
    return figure


def _overlay(axes: Axes, heat: NDArray[Any], size: Sequence[int], patch: NDArray[Any]) -> float:
    """Draw a heatmap over an image of `size`, opaque where it is high; return its maximum."""
    highest = max(float(heat.max()), 1e-12)
    smooth = smoothed(heat, size)
    share = np.clip(smooth / highest, 0, 1)
    axes.imshow(smooth, cmap=HEAT_COLOURS, alpha=0.85 * share, vmin=0, vmax=highest)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    hottest = (np.array([column, row]) + 0.5) * patch - 0.5
    axes.plot(*hottest, **HOTTEST, scalex=False, scaley=False)
    return highest


def smoothed(heat: NDArray[Any], size: Sequence[int]) -> NDArray[Any]:
    """Upsample a map (rows, columns) to `size` (H, W) by bicubic interpolation, in its range."""
    values = torch.from_numpy(np.ascontiguousarray(heat)).float()[None, None]
    large = F.interpolate(values, tuple(size), mode="bicubic", align_corners=False)[0, 0]
    return large.clamp(values.min(), values.max()).numpy()


def _border(point: NDArray[Any], patch: NDArray[Any], style: Mapping[str, Any]) -> Rectangle:
    """Return the border of the patch of (width, height) pixels that contains a point."""
    corner = np.floor((point + 0.5) / patch) * patch - 0.5
    return Rectangle((corner[0], corner[1]), patch[0], patch[1], **style)


def _enlarge(patches: NDArray[Any], size: Sequence[int]) -> NDArray[Any]:
    """Upsample patches (N, rows, columns, ...) to `size` (H, W) by nearest neighbour."""
    rows, columns = (
        np.arange(length) * count // length
        for length, count in zip(size, patches.shape[1:3], strict=True)
    )
    return patches[:, rows[:, None], columns]
