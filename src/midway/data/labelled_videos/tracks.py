"""Videos with ground-truth point tracks: files of TAP-Vid, and synthetic worlds."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from midway.atomic import write_atomically
from midway.data.arrays import MAX_BYTES, read_npz
from midway.data.images import read_image
from midway.data.labelled_videos.numpy_pickle import read_numpy_pickle
from midway.data.synthetic.write import AnyWorldConfig, scene_name
from midway.errors import MidwayError, counted

SUFFIXES = (".pkl", ".pickle", ".npz")
KEYS = ("video", "points", "occluded")
LAYOUT = (
    "a dict of names or a list of videos, each a dict of 'video' (frames, height, width, 3) or a "
    "list of JPEG, 'points' (points, frames, 2) from 0 to 1 and 'occluded' (points, frames)"
)
_EXPECTED = f"expected {LAYOUT}"
MAX_NUMBERS = 2**26
"""Maximum numbers in nested lists."""
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
        raise MidwayError(
            f"{path}: not a file of TAP-Vid ({', '.join(SUFFIXES)}); give one, or a folder"
        )
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


def world_video(config: AnyWorldConfig, seed: int, num_points: int) -> TrackedVideo:
    """Generate a video of a synthetic world with exact tracks of random points.

    Args:
        config: Options of the world; the video has its `num_frames` frames.
        seed: Seed of the world and of the points.
        num_points: Number of points; each is visible in at least one frame.

    """
    world = config.build(seed)
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


def write_tracks(
    folder: Path | str, config: AnyWorldConfig, *, seeds: Iterable[int], num_points: int = 32
) -> None:
    """Write `world_SEED.npz` in TAP-Vid's layout for each seed: frames, points and occlusion."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    size = np.array([config.width, config.height])
    for seed in seeds:
        video = world_video(config, seed, num_points)
        points = (video.points + 0.5) / size
        # Points that have left the frame are hidden.
        outside = ((points < 0) | (points > 1)).any(axis=2)
        arrays = {
            "video": video.frames,
            "points": points,
            "occluded": video.occluded | outside,
        }
        path = folder / f"{video.name}.npz"
        write_atomically(path, lambda file, arrays=arrays: np.savez_compressed(file, **arrays))


def _read_npz(file: Path) -> dict[str, Any]:
    try:
        return dict(read_npz(file, KEYS))
    except OSError as error:
        reason = error.strerror or "not a .npz"
        raise MidwayError(f"{file}: cannot be read ({reason}); check the path") from None
    except ValueError as error:
        raise MidwayError(
            f"{file}: not a .npz of plain arrays ({error}); save it without objects"
        ) from None


def _video(name: str, values: Any, file: Path) -> TrackedVideo:
    # A name may have line breaks and control characters.
    where = f"{file}: {name if name.isprintable() else repr(name)}"
    missing = [key for key in KEYS if not isinstance(values, Mapping) or key not in values]
    if missing:
        found = ", ".join(map(str, values)) if isinstance(values, Mapping) else type(values)
        raise MidwayError(f"{where}: no {', '.join(missing)}, found {found}; expected {LAYOUT}")
    frames = _frames(values["video"], where)
    points, occluded = _numbers(values, "points", where), _numbers(values, "occluded", where)
    wanted = (len(points) if points.ndim else 0, len(frames))
    if points.shape != (*wanted, 2) or occluded.shape != wanted:
        raise MidwayError(
            f"{where}: points of shape {points.shape} and occluded of shape {occluded.shape} for "
            f"{counted(len(frames), 'frame')}; expected {LAYOUT}"
        )
    points, occluded = points.astype(np.float64), occluded.astype(np.bool_)
    visible = points[~occluded]
    if not (np.abs(visible - 0.5) <= 0.5 + MAX_OUTSIDE).all():
        raise MidwayError(
            f"{where}: visible points outside the image, which is 0 to 1; divide pixels by the "
            "sides, and mark points outside the frame as occluded"
        )
    size = np.array([frames.shape[2], frames.shape[1]])
    return TrackedVideo(name=name, frames=frames, points=points * size - 0.5, occluded=occluded)


def _numbers(values: Mapping[str, Any], key: str, where: str) -> np.ndarray:
    """Return numbers as an array, also those of nested lists.

    Lists of a pickle can share their parts, so that a small file contains very many numbers; they
    are counted before an array is made.
    """
    parts, total = [values[key]], 0
    for _ in range(3):
        if not all(isinstance(part, list | tuple) for part in parts):
            break
        total = sum(map(len, parts))
        parts = [each for part in parts for each in part] if total <= MAX_NUMBERS else []
    total = max(total, sum(np.size(part) for part in parts if isinstance(part, np.ndarray)))
    plain = all(isinstance(part, bool | int | float | np.generic | np.ndarray) for part in parts)
    try:
        array = np.asarray(values[key]) if plain and total <= MAX_NUMBERS else np.array("")
    except (TypeError, ValueError, OverflowError):  # lists of unequal lengths
        array = np.array("")
    if array.dtype.kind not in "biuf":
        raise MidwayError(f"{where}: {key} are not numbers in rows of one length; {_EXPECTED}")
    return array


def _frames(video: Any, where: str) -> UInt8[np.ndarray, "frames height width 3"]:
    if isinstance(video, list | tuple) and len(video) and isinstance(video[0], bytes):
        video = _decoded(video, where)
    if isinstance(video, list | tuple) and not video:
        video = np.empty((0,), np.uint8)
    if not isinstance(video, np.ndarray):
        raise MidwayError(f"{where}: video is a {type(video).__name__}; {_EXPECTED}")
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[3] != 3 or len(video) < 2:
        raise MidwayError(
            f"{where}: video of shape {video.shape} and type {video.dtype}; expected at least two "
            "frames of bytes (frames, height, width, 3)"
        )
    return video


def _decoded(pictures: Sequence[Any], where: str) -> UInt8[np.ndarray, "frames height width 3"]:
    video = np.empty((0, 0, 0, 3), np.uint8)
    for number, picture in enumerate(pictures):
        if not isinstance(picture, bytes):
            raise MidwayError(f"{where}: frame {number} is not a JPEG; {_EXPECTED}")
        image = read_image(f"{where}: frame {number}", io.BytesIO(picture))
        if not number:
            if len(pictures) * image.nbytes > MAX_BYTES:
                raise MidwayError(
                    f"{where}: {len(pictures)} frames of {image.shape[1]} x {image.shape[0]} "
                    "pixels do not fit into 2 GiB; resize them, or divide the video"
                )
            video = np.empty((len(pictures), *image.shape), np.uint8)
        if image.shape != video.shape[1:]:
            sizes = sorted((each.shape[1], each.shape[0]) for each in (image, video[0]))
            found = " and ".join(f"{width} x {height}" for width, height in sizes)
            raise MidwayError(f"{where}: frames of {found} pixels; give frames of one size")
        video[number] = image
    return video
