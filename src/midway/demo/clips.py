"""Clips of the page: sheets of frames, of bundled clips or of the user's videos."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from itertools import islice
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from midway.atomic import write_picture
from midway.data.synthetic.world import WorldConfig
from midway.data.video.file import VideoFile

MOST_FRAMES = 32
STEPS = (1 / 8, 1 / 4)
"""Shortest and longest time between two frames of a user's video, in seconds."""
SHEET_COLUMNS = 6
QUALITY = 90
"""Quality of the WebP sheets, 0 to 100."""
FPS, NUM_FRAMES = 8.0, 17
"""Rate and length of a drawn clip."""
ENLARGED = 6
"""Size of a drawn clip relative to the world that `synthetic-tiny` was trained on."""
FILM_SIDE = 384
"""Width of the packaged videos in pixels."""

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


@dataclass(frozen=True, kw_only=True)
class Bundled:
    """A clip that comes with the page."""

    name: str
    title: str
    alt: str
    """Description for those who do not see the clip."""


@dataclass(frozen=True, kw_only=True)
class Scene(Bundled):
    """A synthetic world that no network was trained on."""

    world: WorldConfig
    seed: int


@dataclass(frozen=True, kw_only=True)
class Film(Bundled):
    """A packaged video of photographs; docs/DEMO.md has its command."""

    point: tuple[int, int]
    """Column and row in pixels of the point that the page shows first."""


CROWD = Scene(
    name="crowd",
    title="Crossing shapes",
    alt="four textured shapes that cross each other over a moving, colourful background",
    world=THINGS,
    seed=3_000_015,
)
BUNDLED: tuple[Film | Scene, ...] = (
    Film(
        name="photographs",
        title="Photographs",
        alt="cut-outs of an eye, of clothes and of a cup that drift in front of a rocket at night",
        point=(212, 76),
    ),
    CROWD,
    Film(
        name="fast",
        title="Fast and plain",
        alt="cut-outs of fur, sky, a cup and clothes that cross each other under a night sky",
        point=(290, 80),
    ),
)


def write_bundled(folder: Path, clip: Film | Scene) -> dict[str, Any]:
    """Write a bundled clip and return its entry in the page's list of clips."""
    if isinstance(clip, Scene):
        world = enlarged(clip.world, ENLARGED).build(clip.seed)
        seconds = [number / FPS for number in range(NUM_FRAMES)]
        frames = [world.frame(each).image for each in seconds]
        return _write_sheet(folder, clip.name, clip.title, clip.alt, frames, seconds)
    with as_file(files("midway.demo") / "videos" / f"{clip.name}.mp4") as video:
        entry = write_video_clip(folder, clip.name, video, longest_side=FILM_SIDE)
    return entry | {"title": clip.title, "alt": clip.alt, "point": clip.point}


def write_video_clip(folder: Path, name: str, video: Path, *, longest_side: int) -> dict[str, Any]:
    """Decode the first seconds of a video and return its entry in the page's list of clips.

    Args:
        folder: Folder of the page.
        name: Name of the sheet, without a suffix.
        video: Video file.
        longest_side: Longest side of its frames in pixels; longer ones are reduced.

    Raises:
        BadClipError: The file is not a video, has a single frame or cannot be decoded.

    """
    with VideoFile(str(video)) as opened:
        opened.warn()
        seconds = _times(opened.duration_seconds)
        scale = min(1.0, longest_side / max(opened.height, opened.width))
        frames = [_reduced(frame.image, scale) for frame in opened.frames_in_order(seconds)]
    alt = f"your video {video.name}"
    return _write_sheet(folder, name, video.name, alt, frames, seconds) | {"scale": scale}


def enlarged(world: WorldConfig, factor: int) -> WorldConfig:
    """Return a configuration whose worlds show the same scenes in more pixels."""
    shortest, longest = world.texture_period_pixels
    return replace(
        world,
        height=factor * world.height,
        width=factor * world.width,
        object_speed=factor * world.object_speed,
        camera_speed=factor * world.camera_speed,
        texture_period_pixels=(factor * shortest, factor * longest),
    )


def _times(duration_seconds: float) -> list[float]:
    """Return evenly spaced times from the beginning, as the page chooses them."""
    step = min(STEPS[1], max(STEPS[0], duration_seconds / MOST_FRAMES))
    count = min(MOST_FRAMES, max(2, floor(duration_seconds / step)))
    return [min(duration_seconds, (number + 0.5) * step) for number in range(count)]


def _reduced(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    if scale == 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
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
        "scale": 1.0,
        "seconds": [round(each, 3) for each in seconds],
    }


def _rows(frames: Sequence[NDArray[np.uint8]]) -> Iterator[list[NDArray[np.uint8]]]:
    left = iter(frames)
    while row := list(islice(left, SHEET_COLUMNS)):
        yield row


def _padded(row: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Fill an incomplete row of the sheet with black frames."""
    return row + [np.zeros_like(row[0])] * (SHEET_COLUMNS - len(row))
