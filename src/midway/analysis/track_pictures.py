"""Tracks drawn into the frames of their video (fig. 7)."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from midway.analysis.tracking import Frames, Tracks

TRAIL = 12
"""Frames that a track is drawn back."""
STRIP_FRAMES, STRIP_HEIGHT = 4, 180
"""How many frames are in a strip, and how many pixels high they are."""
GAP_PIXELS = 4
COLOURS = colormaps["plasma"]
"""Of confidence: blue where the point is lost, yellow where it is sure."""


def draw_tracks(
    image: NDArray[np.uint8], tracks: Tracks, frame: int, *, scale: float = 1.0
) -> NDArray[np.uint8]:
    """The frame with a cross at each point, coloured by confidence, and the way it came.

    Args:
        image: RGB bytes (height, width, 3).
        tracks: Through the video.
        frame: Which of its frames this is.
        scale: Pixels of the image for one of the video's.

    """
    drawn = Image.fromarray(image)
    pen = ImageDraw.Draw(drawn)
    thin = max(1, round(min(image.shape[:2]) / 240))
    first = max(0, frame - TRAIL)
    ways = (tracks.points.numpy() + 0.5) * scale - 0.5
    for way, sure in zip(ways, tracks.confidence.numpy(), strict=True):
        for place in range(first, frame):
            _line(pen, [way[place], way[place + 1]], sure[place + 1], thin)
        arm = 6 * thin
        for turn in ((arm, 0), (0, arm)):
            _line(pen, [way[frame] - turn, way[frame] + turn], sure[frame], 2 * thin)
    return np.asarray(drawn)


def track_strip(frames: Frames, tracks: Tracks) -> NDArray[np.uint8]:
    """Frames spread over the video with the tracks drawn, side by side.

    Args:
        frames: Of the video.
        tracks: Through it.

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


def _line(pen: ImageDraw.ImageDraw, ends: Sequence[NDArray], sure: float, width: int) -> None:
    """A line on a wider black one, so that it shows on any ground."""
    places = [tuple(end) for end in ends]
    pen.line(places, fill=(0, 0, 0), width=width + 2)
    colour = tuple(round(255 * part) for part in COLOURS(float(sure))[:3])
    pen.line(places, fill=colour, width=width)
