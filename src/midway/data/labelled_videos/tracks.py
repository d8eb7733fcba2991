"""Videos with ground-truth point tracks: files of TAP-Vid, and synthetic worlds."""

import io
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from midway.data.labelled_videos.numpy_pickle import read_numpy_pickle
from midway.data.synthetic.world import World, WorldConfig
from midway.data.synthetic.write import scene_name
from midway.errors import MidwayError

SUFFIXES = (".pkl", ".pickle", ".npz")
KEYS = ("video", "points", "occluded")
LAYOUT = (
    "a dict of names or a list of videos, each a dict of 'video' (frames, height, width, 3) or a "
    "list of JPEG, 'points' (points, frames, 2) from 0 to 1 and 'occluded' (points, frames)"
)
MAX_OUTSIDE = 0.05
"""Tolerance for visible points outside the image, as a fraction of its side (annotation error)."""
NUM_STARTS = 4
"""Number of frames of a synthetic video in which points are chosen."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackedVideo:
    """Video with tracks of points."""

    name: str
    frames: UInt8[np.ndarray, "frames height width 3"]
    """RGB."""
    points: Float[np.ndarray, "points frames 2"]
    """Column x and row y in pixels; integers are the centres of pixels."""
    occluded: Bool[np.ndarray, "points frames"]
    """True where a point is not visible."""


def read_tap_vid(path: Path) -> Iterator[TrackedVideo]:
    """Yield the videos of a pickle or `.npz` file of TAP-Vid, or of all such files in a folder.

    Raises:
        MidwayError: The file is missing, has another layout, or refers to executable code.

    """
    if path.is_file() and path.suffix not in SUFFIXES:
        raise MidwayError(f"{path}: no {', '.join(SUFFIXES)}; give a file of TAP-Vid, or a folder")
    files = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise MidwayError(f"{path}: no {', '.join(SUFFIXES)} in it; give a file of TAP-Vid")
    for file in files:
        contents = _read_npz(file) if file.suffix == ".npz" else read_numpy_pickle(file)
        if isinstance(contents, Mapping) and "video" in contents:
            contents = {file.stem: contents}
        if isinstance(contents, list | tuple):
            contents = {f"{file.stem}_{number:04d}": each for number, each in enumerate(contents)}
        if not isinstance(contents, Mapping) or not contents:
            raise MidwayError(f"{file}: no videos with tracks; expected {LAYOUT}")
        for name, values in contents.items():
            yield _video(str(name), values, file)


def world_video(config: WorldConfig, seed: int, num_points: int) -> TrackedVideo:
    """Generate a video of a synthetic world with exact tracks of random points.

    Args:
        config: Options of the world; the video has its `num_frames` frames.
        seed: Seed of the world and of the points.
        num_points: Number of points; each is visible in at least one frame.

    """
    world = World(config, seed)
    seconds = np.arange(config.num_frames) / config.fps
    rng = np.random.default_rng([seed, num_points])
    starts = rng.integers(min(NUM_STARTS, config.num_frames), size=num_points)
    starts = starts * config.num_frames // NUM_STARTS
    x, y = rng.integers(config.width, size=num_points), rng.integers(config.height, size=num_points)
    points = np.empty((num_points, config.num_frames, 2))
    occluded = np.empty((num_points, config.num_frames), np.bool_)
    for start in np.unique(starts):
        chosen = np.flatnonzero(starts == start)
        at = y[chosen], x[chosen]
        for number, time in enumerate(seconds):
            motion = world.flow(float(seconds[start]), float(time))
            points[chosen, number] = np.stack([x[chosen], y[chosen]], axis=1) + motion.flow[at]
            occluded[chosen, number] = motion.occluded[at]
    return TrackedVideo(
        name=scene_name(seed),
        frames=np.stack([world.frame(float(time)).image for time in seconds]),
        points=points,
        occluded=occluded,
    )


def _read_npz(file: Path) -> dict[str, Any]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays.items())
    except OSError as error:
        reason = error.strerror or "not a .npz"
        raise MidwayError(f"{file}: cannot be read ({reason}); check the path") from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise MidwayError(
            f"{file}: not a .npz of plain arrays ({error}); save it without objects"
        ) from None


def _video(name: str, values: Any, file: Path) -> TrackedVideo:
    where = f"{file}: {name}"
    missing = [key for key in KEYS if not isinstance(values, Mapping) or key not in values]
    if missing:
        found = ", ".join(map(str, values)) if isinstance(values, Mapping) else type(values)
        raise MidwayError(f"{where}: no {', '.join(missing)}, found {found}; expected {LAYOUT}")
    frames = _frames(values["video"], where)
    points, occluded = np.asarray(values["points"]), np.asarray(values["occluded"])
    wanted = (len(points) if points.ndim else 0, len(frames))
    if points.shape != (*wanted, 2) or occluded.shape != wanted:
        raise MidwayError(
            f"{where}: points of shape {points.shape} and occluded of shape {occluded.shape} for "
            f"{len(frames)} frames; expected {LAYOUT}"
        )
    try:
        points, occluded = points.astype(np.float64), occluded.astype(np.bool_)
    except (TypeError, ValueError):
        raise MidwayError(f"{where}: points are not numbers; expected {LAYOUT}") from None
    visible = points[~occluded]
    if not (np.abs(visible - 0.5) <= 0.5 + MAX_OUTSIDE).all():
        raise MidwayError(
            f"{where}: visible points outside the image, which is 0 to 1; divide pixels by the "
            "sides, and mark points outside the frame as occluded"
        )
    size = np.array([frames.shape[2], frames.shape[1]])
    return TrackedVideo(name=name, frames=frames, points=points * size - 0.5, occluded=occluded)


def _frames(video: Any, where: str) -> UInt8[np.ndarray, "frames height width 3"]:
    if len(video) and isinstance(video[0], bytes):
        try:
            pictures = [np.array(Image.open(io.BytesIO(each)).convert("RGB")) for each in video]
        except (OSError, SyntaxError, ValueError) as error:
            raise MidwayError(f"{where}: a frame is not a JPEG ({error}); fetch it again") from None
        sizes = sorted({(each.shape[1], each.shape[0]) for each in pictures})
        if len(sizes) > 1:
            found = " and ".join(f"{width} x {height}" for width, height in sizes[:2])
            raise MidwayError(f"{where}: frames of {found} pixels; give frames of one size")
        video = np.stack(pictures)
    video = np.asarray(video)
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[3] != 3 or len(video) < 2:
        raise MidwayError(
            f"{where}: video of shape {video.shape} and type {video.dtype}; expected at least two "
            "frames of bytes (frames, height, width, 3)"
        )
    return video
