"""Pictures of tracks, drawn over the frames of their video (fig. 7)."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from midway.analysis.tracking import Frames, Tracks

TRAIL = 12
"""Length of the drawn trail of a track, in frames."""
STRIP_FRAMES, STRIP_HEIGHT = 4, 180
"""Number of frames in a strip, and their height in pixels."""
GAP_PIXELS = 4
"""Width of the white gap between the frames of a strip."""
COLOURS = colormaps["plasma"]
"""Colour map of confidence, from blue (0) to yellow (1)."""


def draw_tracks(
    image: NDArray[np.uint8], tracks: Tracks, frame: int, *, scale: float = 1.0
) -> NDArray[np.uint8]:
    """Draw a cross at each point of a frame and its trail, coloured by confidence.

    Args:
        image: RGB bytes (height, width, 3).
        tracks: Tracks of the video.
        frame: Index of the frame.
        scale: Size of the image relative to the frames of the video.

    Returns:
        RGB bytes (height, width, 3).

    """
    drawn = Image.fromarray(image)
    pen = ImageDraw.Draw(drawn)
    thin = max(1, round(min(image.shape[:2]) / 240))
    first = max(0, frame - TRAIL)
    paths = (tracks.points.numpy() + 0.5) * scale - 0.5  # integers are pixel centres
    for path, confidence in zip(paths, tracks.confidence.numpy(), strict=True):
        for number in range(first, frame):
            _line(pen, [path[number], path[number + 1]], confidence[number + 1], thin)
        arm = 6 * thin
        for offset in ((arm, 0), (0, arm)):
            ends = [path[frame] - offset, path[frame] + offset]
            _line(pen, ends, confidence[frame], 2 * thin)
    return np.asarray(drawn)


def track_strip(frames: Frames, tracks: Tracks) -> NDArray[np.uint8]:
    """Draw the tracks over evenly spaced frames of a video, side by side.

    Args:
        frames: Frames of the video.
        tracks: Tracks of the video.

    Returns:
        RGB bytes (height, width, 3).

    """
    shown = np.linspace(0, len(frames) - 1, min(STRIP_FRAMES, len(frames))).round().astype(int)
    parts: list[NDArray[np.uint8]] = []
    for frame in shown.tolist():
        image = Image.fromarray(frames[frame].permute(1, 2, 0).numpy())
        scale = STRIP_HEIGHT / image.height
        small = np.asarray(image.resize((round(scale * image.width), STRIP_HEIGHT)))
        gap = np.full((STRIP_HEIGHT, GAP_PIXELS, 3), 255, np.uint8)
        parts += [draw_tracks(small, tracks, frame, scale=scale), gap]
    return np.concatenate(parts[:-1], axis=1)


def _line(pen: ImageDraw.ImageDraw, ends: Sequence[NDArray], confidence: float, width: int) -> None:
    """Draw a line over a wider black one, so that it is visible on any background."""
    places = [tuple(end) for end in ends]
    pen.line(places, fill=(0, 0, 0), width=width + 2)
    colour = tuple(round(255 * part) for part in COLOURS(float(confidence))[:3])
    pen.line(places, fill=colour, width=width)
