"""Signals: numbers recorded together with the frames of a clip, such as the actions of a robot.

They are in a NumPy archive beside the video (`walk.mp4`, `walk.signals.npz`) or in the folder of
the frames (`signals.npz`, prefixed with the part of the frame names around the number:
`0001TP_.signals.npz`). Its array `seconds` (rows,) is increasing. Every other array (rows, ...) is
a signal, and a row is valid from its time until that of the next row.

Episodes of LeRobot datasets have the columns of a Parquet table instead, such as `action` and
`observation.state`. Column `timestamp` is the time of a row's frame after the first of the episode.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from midway.data.arrays import read_npz
from midway.data.clip import ROUNDING_SECONDS, BadClipError, Clip, SignalSource
from midway.data.files import open_binary
from midway.data.tables import read_columns

SUFFIX = ".signals.npz"
_REMEDY = "mend or remove it"
_EPISODE = "episode_index"
_UNREADABLE = (OSError, ValueError, KeyError)
"""Errors for a file that is missing, damaged, or lacks an array."""


def read_signals(
    clip: Clip, shapes: Mapping[str, tuple[int, ...]], seconds: Sequence[float]
) -> dict[str, NDArray[np.float32]]:
    """Return the signals of a clip at the times of some frames.

    Args:
        clip: Clip of the frames.
        shapes: Shape of one row of each requested signal, by name.
        seconds: Time of each frame in seconds after the first of the clip.

    Returns:
        Values (frames, ...) by name.

    Raises:
        BadClipError: A signal is missing, damaged, of another shape or begins after a frame.
    """
    source = clip.signals
    if source is None:
        names = ", ".join(shapes)
        raise BadClipError(
            clip.location, f"has no signals ({names})", "train from the source files"
        )
    location = source.location
    times, values = _load(source, tuple(shapes))
    asked = np.asarray(seconds) + source.start_seconds
    rows = np.searchsorted(times, asked + ROUNDING_SECONDS, side="right") - 1
    if rows.min() < 0:
        raise BadClipError(
            location, f"begins at {times[0]:.2f} s, after a frame at {min(asked):.2f} s", _REMEDY
        )
    for name, shape in shapes.items():
        if values[name].shape[1:] != shape:
            found = values[name].shape[1:]
            raise BadClipError(location, f"has {name} of shape {found}, not {shape}", _REMEDY)
    return {name: values[name][rows] for name in shapes}


@lru_cache(maxsize=16)
def _load(
    source: SignalSource, names: tuple[str, ...]
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float32]]]:
    """Return the times (rows,) from which rows are valid, and the signals (rows, ...) by name."""
    location, episode = source.location, source.episode
    clock = "seconds" if episode is None else "timestamp"
    try:
        if episode is None:
            with open_binary(location) as file:
                arrays = read_npz(file, (clock, *names))
        else:
            arrays = _episode(location, (clock, *names), episode)
        times = arrays[clock].astype(np.float64)
        values = {name: arrays[name].astype(np.float32) for name in names}
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise BadClipError(location, f"cannot be read as signals ({reason})", _REMEDY) from error
    if times.ndim != 1 or not len(times) or not np.all(np.diff(times) > 0):
        raise BadClipError(
            location, f"has no array `{clock}` that increases from row to row", _REMEDY
        )
    for name, rows in values.items():
        if rows.shape[:1] != times.shape or not np.isfinite(rows).all():
            raise BadClipError(
                location,
                f"does not have one finite value of {name} for each row of `{clock}`",
                _REMEDY,
            )
    if episode is not None:
        # A row is that of the nearest frame: times are rounded to float32, and those of the video
        # to its ticks.
        times -= 0.5 * np.diff(times).min(initial=np.inf if len(times) > 1 else 0.0)
    return times, values


def _episode(location: str, names: tuple[str, ...], episode: int) -> dict[str, NDArray[Any]]:
    """Return the rows of an episode.

    Raises:
        OSError, ValueError: The table cannot be read, or has no row of the episode.
    """
    table = _read_table(location, names)
    rows = np.flatnonzero(table[_EPISODE] == episode)
    if not len(rows):
        raise ValueError(f"no row of episode {episode}")
    return {name: table[name][rows] for name in names}


@lru_cache(maxsize=4)  # a table contains hundreds of episodes, in up to 100 MB
def _read_table(location: str, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    return read_columns(location, lambda columns: (_EPISODE, *names))
