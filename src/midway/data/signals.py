"""Signals: numbers recorded together with the frames of a clip, such as the actions of a robot.

They are in a NumPy archive beside the video (`walk.mp4`, `walk.signals.npz`) or in the folder of
the frames (`signals.npz`, prefixed with the part of the frame names around the number:
`0001TP_.signals.npz`). Its array `seconds` (rows,) is increasing. Every other array (rows, ...) is
a signal, and a row is valid from its time until that of the next row.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from midway.data.arrays import read_npz
from midway.data.clip import ROUNDING_SECONDS, BadClipError, Clip
from midway.data.files import open_binary

SUFFIX = ".signals.npz"
_REMEDY = "mend or remove it"
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
    location = clip.signals_location
    if location is None:
        names = ", ".join(shapes)
        raise BadClipError(
            clip.location, f"has no signals ({names})", "train from the source files"
        )
    times, values = _load(location, tuple(shapes))
    rows = np.searchsorted(times, np.asarray(seconds) + ROUNDING_SECONDS, side="right") - 1
    if rows.min() < 0:
        raise BadClipError(
            location, f"begins at {times[0]:.2f} s, after a frame at {min(seconds):.2f} s", _REMEDY
        )
    for name, shape in shapes.items():
        if values[name].shape[1:] != shape:
            found = values[name].shape[1:]
            raise BadClipError(location, f"has {name} of shape {found}, not {shape}", _REMEDY)
    return {name: values[name][rows] for name in shapes}


@lru_cache(maxsize=16)
def _load(
    location: str, names: tuple[str, ...]
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float32]]]:
    try:
        with open_binary(location) as file:
            arrays = read_npz(file, ("seconds", *names))
        times = arrays["seconds"].astype(np.float64)
        values = {name: arrays[name].astype(np.float32) for name in names}
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise BadClipError(location, f"cannot be read as signals ({reason})", _REMEDY) from error
    if times.ndim != 1 or not len(times) or not np.all(np.diff(times) > 0):
        raise BadClipError(
            location, "has no array `seconds` that increases from row to row", _REMEDY
        )
    for name, rows in values.items():
        if rows.shape[:1] != times.shape or not np.isfinite(rows).all():
            raise BadClipError(
                location,
                f"does not have one finite value of {name} for each row of `seconds`",
                _REMEDY,
            )
    return times, values
