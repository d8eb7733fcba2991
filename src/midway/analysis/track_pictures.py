"""Pictures of tracks, drawn over the frames of their video (fig. 7)."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from midway.analysis.lettering import (
    BACK,
    GAP_PIXELS,
    INK,
    Colour,
    Entry,
    draw_mark,
    enlarged,
    font,
    letter_pixels,
    side_by_side,
    whole_factor,
    with_legend,
)
from midway.analysis.tracking import Frames, Tracks

TRAIL = 12
"""Length of the drawn trail of a track, in frames."""
STRIP_FRAMES, STRIP_HEIGHT = 4, 240
"""Number of frames in a strip, and their height in pixels."""
LOST = 0.5
"""Confidence below which a point is drawn as lost."""
NAMED_POINTS = 8
"""Maximum number of points that are numbered and listed in the legend; more would hide the
frame."""
# Okabe and Ito's palette for colour-blind readers, the most distinct first.
COLOURS = (
    *("#E69F00", "#56B4E9", "#F0E442", "#CC79A7"),
    *("#009E73", "#D55E00", "#0072B2", "#FFFFFF"),
)


def colours_of(num_points: int) -> list[Colour]:
    """Return one colour per point."""
    if num_points <= len(COLOURS):
        found = [to_rgb(colour) for colour in COLOURS[:num_points]]
    else:
        found = [colormaps["turbo"](share)[:3] for share in np.linspace(0.05, 0.95, num_points)]
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in found]


def draw_tracks(
    image: NDArray[np.uint8],
    tracks: Tracks,
    starts: Int[Tensor, " points"],
    frame: int,
    *,
    scale: float = 1.0,
) -> NDArray[np.uint8]:
    """Draw each point of a frame in its colour, with its trail, and a diamond at its start.

    A point is a dot, or a ring while its confidence is below one half.

    Args:
        image: RGB bytes (height, width, 3).
        tracks: Tracks of the video.
        starts: Index of the start frame of each point.
        frame: Index of the frame.
        scale: Size of the image relative to the frames of the video.

    Returns:
        RGB bytes (height, width, 3).

    """
    drawn = Image.fromarray(image)
    pen = ImageDraw.Draw(drawn)
    size = letter_pixels(len(image))
    radius, thin = 0.35 * size, max(1, round(size / 8))
    paths = (tracks.points.numpy() + 0.5) * scale - 0.5  # integers are pixel centres
    confidence = tracks.confidence.numpy()
    for number, (path, colour) in enumerate(zip(paths, colours_of(len(paths)), strict=True)):
        x, y = path[starts[number]]
        draw_mark(pen, "diamond", (x, y), colour, radius)
        trail = [tuple(place) for place in path[max(0, frame - TRAIL) : frame + 1]]
        pen.line(trail, fill=(0, 0, 0), width=thin + 2, joint="curve")
        pen.line(trail, fill=colour, width=thin, joint="curve")
    for number, (path, colour) in enumerate(zip(paths, colours_of(len(paths)), strict=True)):
        x, y = path[frame]
        is_lost = confidence[number, frame] < LOST
        draw_mark(pen, "ring" if is_lost else "dot", (x, y), colour, radius)
        if len(paths) <= NAMED_POINTS:
            place, name = (x + 0.7 * size, y - 0.7 * size), str(number + 1)
            border = {"stroke_width": max(1, size // 12), "stroke_fill": (0, 0, 0)}
            pen.text(place, name, colour, font(size), "mm", **border)
    return np.asarray(drawn)


def track_frame(
    image: NDArray[np.uint8],
    tracks: Mapping[str, Tracks],
    starts: Int[Tensor, " points"],
    frame: int,
    seconds: float,
) -> NDArray[np.uint8]:
    """Draw a frame of a video of tracks, with time and legend; several tracks side by side.

    Args:
        image: RGB bytes (height, width, 3).
        tracks: Tracks by caption, such as the name of their network.
        starts: Index of the start frame of each point.
        frame: Index of the frame.
        seconds: Time of the frame.

    """
    factor = whole_factor(image)
    large = enlarged(image, factor)
    parts = [
        (f"{seconds:.2f} s  {caption}", draw_tracks(large, each, starts, frame, scale=factor))
        for caption, each in tracks.items()
    ]
    return with_legend(side_by_side(parts), _legend(tracks, starts), letter_pixels(len(large)))


def track_strip(
    frames: Frames,
    tracks: Mapping[str, Tracks],
    starts: Int[Tensor, " points"],
    seconds: Sequence[float],
) -> NDArray[np.uint8]:
    """Draw tracks over evenly spaced frames of a video, with their times and a legend.

    Args:
        frames: Frames of the video.
        tracks: Tracks by caption, one row each.
        starts: Index of the start frame of each point.
        seconds: Time of each frame.

    Returns:
        RGB bytes (height, width, 3).

    """
    shown = np.linspace(0, len(frames) - 1, min(STRIP_FRAMES, len(frames))).round().astype(int)
    small = {frame: _resized(frames[frame].permute(1, 2, 0).numpy()) for frame in shown.tolist()}
    rows: list[NDArray[np.uint8]] = []
    for caption, each in tracks.items():
        row = []
        for frame, image in small.items():
            scale = STRIP_HEIGHT / frames[frame].shape[1]
            drawn = draw_tracks(image, each, starts, frame, scale=scale)
            row.append((f"{seconds[frame]:.2f} s  {caption}", drawn))
        rows.append(side_by_side(row))
    gap = np.full((GAP_PIXELS, rows[0].shape[1], 3), BACK, np.uint8)
    whole = np.concatenate([part for row in rows for part in (row, gap)])
    return with_legend(whole, _legend(tracks, starts), letter_pixels(STRIP_HEIGHT))


def _resized(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    width = round(image.shape[1] * STRIP_HEIGHT / image.shape[0])
    return np.asarray(Image.fromarray(image).resize((width, STRIP_HEIGHT)))


def _legend(tracks: Mapping[str, Tracks], starts: Int[Tensor, " points"]) -> list[Entry]:
    """Return the entries of a legend: marks, and the points with their starts."""
    points = next(iter(tracks.values())).points
    entries = [
        Entry(mark="diamond", colour=INK, text="start"),
        Entry(mark="dot", colour=INK, text="point"),
        Entry(mark="ring", colour=INK, text="probably lost"),
    ]
    if len(points) > NAMED_POINTS:
        return entries
    for number, colour in enumerate(colours_of(len(points))):
        x, y = points[number, starts[number]].tolist()
        entries.append(Entry(mark="dot", colour=colour, text=f"{number + 1}: {x:g}, {y:g}"))
    return entries
