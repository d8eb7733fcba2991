"""Predicted masks as palette images with a class list, and overlays with a legend."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from midway.atomic import write_picture, write_text
from midway.data.segmentation.class_list import ClassList

OUTLINE = (255, 255, 255)
"""Colour of the boundaries between classes."""
MAX_NAMED = 30
"""Maximum classes in the legend of a video, which has the same legend in each frame."""
LEGEND_BACKGROUND, LEGEND_TEXT = (255, 255, 255), (0, 0, 0)
SMALLEST_TEXT, LARGEST_TEXT = 12, 28
"""Range of the size of text in pixels; it grows with the picture."""


def write_mask(path: Path, predicted: NDArray[np.uint8], classes: ClassList) -> None:
    """Write classes as a palette PNG: indices are ids of the class list, colours those of classes.

    The written mask can be read with the same class list again, by ids or by colours.

    Args:
        path: File to write.
        predicted: Class ids (height, width).
        classes: Names, ids and colours.

    """
    stored = classes.stored()
    palette = np.zeros((256, 3), np.uint8)
    palette[stored] = classes.painted()
    mask = Image.fromarray(stored[predicted])
    mask.putpalette(palette.tobytes())
    write_picture(path, mask)


def write_classes(path: Path, classes: ClassList) -> None:
    """Write the class list of written masks as TOML: colours, and ids unless masks have colours."""
    names = [json.dumps(name, ensure_ascii=False) for name in classes.names]  # as TOML quotes them
    lines = ["[colours]"]
    lines += [f"{n} = {[*colour]}" for n, colour in zip(names, classes.painted(), strict=True)]
    if not classes.by_colour:
        ids = zip(names, classes.stored().tolist(), strict=True)
        lines = ["[ids]", *(f"{name} = {number}" for name, number in ids), "", *lines]
    write_text(path, "\n".join(lines) + "\n")


def overlay(
    image: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: ClassList, opacity: float
) -> NDArray[np.uint8]:
    """Blend an image (height, width, 3) with the colours of its classes, and draw their outlines.

    Args:
        image: RGB.
        predicted: Class ids (height, width).
        classes: Colours.
        opacity: Weight of the colours, from 0 to 1.

    Returns:
        RGB of the same shape.

    """
    colours = np.array(classes.painted(), np.float32)[predicted]
    blended = (image + opacity * (colours - image)).round().astype(np.uint8)
    blended[boundaries(predicted)] = OUTLINE
    return blended


def boundaries(predicted: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return a mask (height, width) of pixels whose right or lower neighbour has another class."""
    found = np.zeros(predicted.shape, bool)
    found[:, :-1] |= predicted[:, :-1] != predicted[:, 1:]
    found[:-1] |= predicted[:-1] != predicted[1:]
    return found


def legend(names: list[str], colours: list[tuple[int, int, int]], width: int) -> NDArray[np.uint8]:
    """Draw a strip with a square and a name for each class.

    Returns:
        RGB (height, width, 3); the height follows from the number of lines.

    """
    size = min(max(width // 50, SMALLEST_TEXT), LARGEST_TEXT)
    font, gap = ImageFont.load_default(size), size // 2
    column = max(3 * size + gap + int(font.getlength(name)) for name in names)
    columns = max(1, width // column)
    rows = -(-len(names) // columns)
    strip = Image.new("RGB", (width, rows * (size + gap) + gap), LEGEND_BACKGROUND)
    pen = ImageDraw.Draw(strip)
    for number, (name, colour) in enumerate(zip(names, colours, strict=True)):
        x = gap + number % columns * (width // columns)
        y = gap + number // columns * (size + gap)
        pen.rectangle((x, y, x + size - 1, y + size - 1), colour, LEGEND_TEXT)
        pen.text((x + size + gap, y + size / 2), name, LEGEND_TEXT, font, anchor="lm")
    return np.array(strip)


def with_legend(
    picture: NDArray[np.uint8], classes: ClassList, shown: list[int]
) -> NDArray[np.uint8]:
    """Return a picture (height, width, 3) above a legend of some classes, if there are any."""
    if not shown:
        return picture
    names, colours = [classes.names[c] for c in shown], classes.painted()
    strip = legend(names, [colours[c] for c in shown], picture.shape[1])
    return np.concatenate([picture, strip])
