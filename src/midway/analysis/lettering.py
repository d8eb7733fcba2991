"""Captions, legends and colour wheels beside images and video frames, drawn with Pillow.

Bars are dark, so that they suit light and dark pages. Images of fewer pixels than `MIN_SIDE` are
enlarged by whole factors, because letters would not fit below them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from midway.data.flow.colours import flow_to_rgb

Pixels = NDArray[np.uint8]
"""RGB bytes (height, width, 3)."""
Colour = tuple[int, int, int]
MIN_SIDE = 240
"""Smallest width and height of an image with a caption, in pixels."""
BACK: Colour = (20, 20, 20)
INK: Colour = (240, 240, 240)
GAP_PIXELS = 4
"""Width of the gap between images."""
LETTER_SHARE = 24
"""Height of a frame divided by the size of its letters."""
SMALLEST_LETTERS, LARGEST_LETTERS = 13, 30
"""Bounds of the size of letters, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Entry of a legend: a mark and its meaning."""

    mark: Literal["dot", "ring", "diamond"]
    colour: Colour
    text: str


def whole_factor(image: Pixels) -> int:
    """Return the whole factor by which a small image is enlarged before it gets a caption."""
    return max(1, -(-MIN_SIDE // min(image.shape[:2])))


def enlarged(image: Pixels, factor: int) -> Pixels:
    """Repeat each pixel `factor` times in both directions."""
    return image.repeat(factor, 0).repeat(factor, 1)


def letter_pixels(height: int) -> int:
    """Return the size of the letters beside an image of this height in pixels."""
    return min(max(height // LETTER_SHARE, SMALLEST_LETTERS), LARGEST_LETTERS)


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return the font that is part of Pillow."""
    found = ImageFont.load_default(size)
    assert isinstance(found, ImageFont.FreeTypeFont)
    return found


def side_by_side(images: Sequence[tuple[str, Pixels]]) -> Pixels:
    """Join images of one height from left to right, each below its caption."""
    parts = [_captioned(image, caption) for caption, image in images]
    gap = np.full((len(parts[0]), GAP_PIXELS, 3), BACK, np.uint8)
    joined = [each for part in parts for each in (part, gap)]
    return np.concatenate(joined[:-1], axis=1)


def _captioned(image: Pixels, caption: str) -> Pixels:
    size = letter_pixels(len(image))
    bar = Image.new("RGB", (image.shape[1], round(1.6 * size)), BACK)
    ImageDraw.Draw(bar).text((size // 2, bar.height / 2), caption, INK, font(size), anchor="lm")
    return np.concatenate([np.asarray(bar), image])


def with_legend(image: Pixels, entries: Sequence[Entry], size: int) -> Pixels:
    """Add a legend below an image, in as many lines as its entries need.

    Args:
        image: The image.
        entries: Marks and texts, from left to right.
        size: Size of the letters in pixels.

    """
    line, places = round(1.6 * size), []
    x, y = size // 2, 0
    for entry in entries:
        width = round(1.4 * size + font(size).getlength(entry.text))
        if x + width > image.shape[1] and x > size // 2:
            x, y = size // 2, y + line
        places.append((x, y))
        x += width + size
    bar = Image.new("RGB", (image.shape[1], y + line), BACK)
    pen = ImageDraw.Draw(bar)
    for entry, (x, y) in zip(entries, places, strict=True):
        draw_mark(pen, entry.mark, (x + size / 2, y + line / 2), entry.colour, 0.32 * size)
        text_place = (x + 1.4 * size, y + line / 2)
        pen.text(text_place, entry.text, INK, font(size), anchor="lm")
    return np.concatenate([image, np.asarray(bar)])


def draw_mark(
    pen: ImageDraw.ImageDraw,
    mark: Literal["dot", "ring", "diamond"],
    place: tuple[float, float],
    colour: Colour,
    radius: float,
) -> None:
    """Draw a mark with a black border, which is visible on any background."""
    thin = max(1, round(radius / 3))
    if mark == "diamond":
        x, y = place
        r = 1.3 * radius
        corners = [(x, y - r), (x + r, y), (x, y + r), (x - r, y), (x, y - r), (x + r, y)]
        pen.line(corners, fill=(0, 0, 0), width=thin + 2, joint="curve")
        pen.line(corners, fill=colour, width=thin, joint="curve")
    elif mark == "ring":
        pen.circle(place, radius + 1, outline=(0, 0, 0), width=thin + 2)
        pen.circle(place, radius, outline=colour, width=thin)
    else:
        pen.circle(place, radius, fill=colour, outline=(0, 0, 0), width=1)


def with_wheel(image: Pixels, max_pixels: float) -> Pixels:
    """Draw the colour wheel of flow into the lower right corner, with the length at its rim."""
    size = letter_pixels(len(image))
    side = 4 * size
    x, y = np.meshgrid(*[np.linspace(-1, 1, side)] * 2)
    disc = np.full((side, side, 3), BACK, np.uint8)
    inside = np.hypot(x, y) <= 1
    disc[inside] = flow_to_rgb(np.stack([x, y], axis=-1), 1)[inside]
    text = f"{max_pixels:.1f} px"
    box = Image.new("RGB", (max(side, round(font(size).getlength(text))) + size, side + 2 * size))
    box.paste(BACK, (0, 0, *box.size))
    box.paste(Image.fromarray(disc), ((box.width - side) // 2, size // 2))
    place = (box.width / 2, side + 1.2 * size)
    ImageDraw.Draw(box).text(place, text, INK, font(size), anchor="mm")
    drawn = Image.fromarray(image)
    drawn.paste(box, (drawn.width - box.width, drawn.height - box.height))
    return np.asarray(drawn)
