"""Clips of the page: sheets of frames, of synthetic worlds or of the user's videos."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from midway.atomic import write_picture
from midway.data.synthetic.shape_world import ShapeWorldConfig
from midway.data.synthetic.world import WorldConfig
from midway.data.video.file import VideoFile

MOST_FRAMES = 32
LONGEST_SIDE = 640
"""Longest side of a frame of a user's video in pixels; longer ones are reduced."""
STEPS = (1 / 8, 1 / 4)
"""Shortest and longest time between two frames of a user's video, in seconds."""
SHEET_COLUMNS = 6
QUALITY = 90
"""Quality of the WebP sheets, 0 to 100."""
FPS, NUM_FRAMES = 8.0, 17
"""Rate and length of a bundled clip."""
ENLARGED = 6
"""Size of a bundled clip relative to the world that the bundled network was trained on."""

# The world of the last stage of docs/MOTION.md; `synthetic-tiny` was trained on one like it.
THINGS = WorldConfig(
    height=48,
    width=48,
    num_objects=4,
    object_speed=12.0,
    camera_speed=12.0,
    camera_reach=(0.3, 0.3),
    backdrop="clouds",
    backdrop_periods=(0.17, 0.7),
    texture_period_pixels=(12.0, 20.0),
    num_frames=16,
    fps=8.0,
)
SHAPES = ShapeWorldConfig(height=96, width=96, num_objects=4)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A bundled clip: a synthetic world that no network was trained on."""

    name: str
    title: str
    alt: str
    """Description for those who do not see the clip."""
    world: WorldConfig | ShapeWorldConfig
    seed: int


SCENES = (
    Scene(
        name="drift",
        title="Drifting shapes",
        alt="four textured shapes that drift over a moving, colourful background",
        world=THINGS,
        seed=3_000_001,
    ),
    Scene(
        name="crowd",
        title="Crossing shapes",
        alt="four textured shapes that cross each other over a moving, colourful background",
        world=THINGS,
        seed=3_000_015,
    ),
    Scene(
        name="signs",
        title="Unfamiliar signs",
        alt="four bright, letter-like signs on a dark background, unlike the training worlds",
        world=SHAPES,
        seed=14_000_002,
    ),
)


def write_scene(folder: Path, scene: Scene) -> dict[str, Any]:
    """Render a bundled clip and return its entry in the page's list of clips."""
    factor = ENLARGED * THINGS.height // scene.world.height
    world = enlarged(scene.world, factor).build(scene.seed)
    seconds = [number / FPS for number in range(NUM_FRAMES)]
    frames = [world.frame(each).image for each in seconds]
    return _write_sheet(folder, scene.name, scene.title, scene.alt, frames, seconds)


def write_video_clip(folder: Path, name: str, video: Path) -> dict[str, Any]:
    """Decode the first seconds of a video and return its entry in the page's list of clips.

    Args:
        folder: Folder of the page.
        name: Name of the sheet, without a suffix.
        video: Video file.

    Raises:
        BadClipError: The file is not a video, has a single frame or cannot be decoded.

    """
    with VideoFile(str(video)) as opened:
        opened.warn()
        seconds = _times(opened.duration_seconds)
        frames = [_reduced(frame.image) for frame in opened.frames_in_order(seconds)]
    return _write_sheet(folder, name, video.name, f"your video {video.name}", frames, seconds)


def enlarged(world: WorldConfig | ShapeWorldConfig, factor: int) -> WorldConfig | ShapeWorldConfig:
    """Return a configuration whose worlds show the same scenes in more pixels."""
    sizes = {
        name: getattr(world, name) * factor
        for name in ("height", "width", "object_speed", "camera_speed")
    }
    periods = {
        name: tuple(factor * period for period in getattr(world, name))
        for name in ("texture_period_pixels", "texture_periods", "backdrop_patches")
        if hasattr(world, name)
    }
    return replace(world, **sizes, **periods)


def _times(duration_seconds: float) -> list[float]:
    """Return evenly spaced times from the beginning, as the page chooses them."""
    step = min(STEPS[1], max(STEPS[0], duration_seconds / MOST_FRAMES))
    count = min(MOST_FRAMES, max(2, floor(duration_seconds / step)))
    return [min(duration_seconds, (number + 0.5) * step) for number in range(count)]


def _reduced(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    factor = LONGEST_SIDE / max(image.shape[:2])
    if factor >= 1:
        return image
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def _write_sheet(
    folder: Path,
    name: str,
    title: str,
    alt: str,
    frames: Sequence[NDArray[np.uint8]],
    seconds: Sequence[float],
) -> dict[str, Any]:
    height, width = frames[0].shape[:2]
    rows = [np.concatenate(_padded(row), axis=1) for row in _rows(frames)]
    write_picture(
        folder / f"{name}.webp", Image.fromarray(np.concatenate(rows)), quality=QUALITY, method=4
    )
    return {
        "name": name,
        "title": title,
        "alt": alt,
        "sheet": f"{name}.webp",
        "columns": SHEET_COLUMNS,
        "width": width,
        "height": height,
        "seconds": [round(each, 3) for each in seconds],
    }


def _rows(frames: Sequence[NDArray[np.uint8]]) -> Iterator[list[NDArray[np.uint8]]]:
    left = iter(frames)
    while row := list(islice(left, SHEET_COLUMNS)):
        yield row


def _padded(row: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Fill an incomplete row of the sheet with black frames."""
    return row + [np.zeros_like(row[0])] * (SHEET_COLUMNS - len(row))
