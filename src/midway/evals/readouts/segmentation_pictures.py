"""Output of segmentation evaluations: pictures, confusion matrix plots and score tables."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor

from midway.atomic import write_atomically
from midway.data.segmentation.class_list import ClassList
from midway.data.segmentation.classes import IGNORE

DPI = 150
RIGHT, WRONG, UNLABELLED = (225, 225, 225), (200, 0, 0), (0, 0, 0)
NAMED_CLASSES = 30
"""Maximum number of classes whose names are written beside a confusion matrix; more would be
illegible."""
LEGEND_COLUMNS = 6


def shown_indices(count: int, num_pictures: int) -> set[int]:
    """Return the indices of evenly spaced images to draw, starting with the first."""
    shown = min(num_pictures, count)
    return {number * count // shown for number in range(shown)}


def write_picture(
    path: Path,
    image: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    predicted: NDArray[np.uint8],
    classes: ClassList,
) -> None:
    """Write a PNG of an image, its true and predicted classes, and the error map.

    Args:
        path: File to write.
        image: RGB of shape (height, width, 3).
        truth: Class ids of shape (label height, label width); ignored pixels are black.
        predicted: Class ids of the same shape.
        classes: Names and colours of all classes; the legend lists those that occur.

    """
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(classes.names)] = classes.painted()
    error = np.where((truth == predicted)[..., None], RIGHT, WRONG).astype(np.uint8)
    error[truth == IGNORE] = UNLABELLED
    panels = {
        "image": image,
        "truth": colours[truth],
        "prediction": colours[predicted],
        "error": error,
    }
    height, width = truth.shape
    present = [c for c in np.union1d(truth, predicted) if c != IGNORE]
    legend_inches = 0.2 * -(-len(present) // LEGEND_COLUMNS) + 0.1
    figure = Figure(
        figsize=(9, 9 * height / width + 0.5 + legend_inches), dpi=DPI, layout="constrained"
    )
    for axes, (name, panel) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        axes.imshow(panel, interpolation="nearest")
        axes.set_title(name, fontsize=9)
        axes.set_axis_off()
    patches = [
        Patch(color=tuple((colours[c] / 255).tolist()), label=classes.names[c]) for c in present
    ]
    figure.legend(
        handles=patches,
        loc="outside lower center",
        ncols=LEGEND_COLUMNS,
        fontsize=7,
        frameon=False,
    )
    _write(figure, path)


def write_confusion(path: Path, confusion: Tensor, class_names: Sequence[str]) -> None:
    """Write a PNG of a confusion matrix; each row, a true class, sums to 100 %."""
    counts = confusion.double().numpy()
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    count = len(class_names)
    side = 2.5 + 0.25 * min(count, NAMED_CLASSES)
    figure = Figure(figsize=(side + 0.8, side), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap="magma", vmin=0, vmax=100, interpolation="nearest")
    axes.set(xlabel="predicted", ylabel="true")
    if count <= NAMED_CLASSES:
        axes.set_xticks(range(count), class_names, rotation=90, fontsize=7)
        axes.set_yticks(range(count), class_names, fontsize=7)
    figure.colorbar(drawn, ax=axes, label="% of the true class's pixels", shrink=0.8)
    _write(figure, path)


def score_table(results: dict[str, Any]) -> str:
    """Format the scores of each class and the means as text, in percent."""
    classes = results["classes"]
    width = max(map(len, classes))
    lines = [f"{'class':<{width}}    IoU    acc  pixels"]
    for name, row in classes.items():
        cells = ["     -" if row[key] is None else f"{row[key]:6.2f}" for key in row]
        lines.append(f"{name:<{width}} {' '.join(cells)}")
    lines.append(f"mIoU {results['miou']:.2f} %, pixel accuracy {results['accuracy']:.2f} %")
    return "\n".join(lines)


def _write(figure: Figure, path: Path) -> None:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(buffer.getvalue()))
