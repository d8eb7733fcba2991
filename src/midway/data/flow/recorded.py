"""Flow recorded beside a clip as signals, for methods that need external flow.

The archive (`walk.signals.npz` beside `walk.mp4`) contains, for each frame, the flow to the
frames one fixed gap later and earlier. Clips must be sampled at exactly that gap.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from midway.atomic import write_atomically
from midway.data.flow.files import read_flow
from midway.errors import MidwayError

UNKNOWN = 60_000.0
"""Mark of unknown flow; signals must be finite, and float16 has no larger number that is round."""


def write_recorded_flow(
    path: Path | str,
    seconds: Sequence[float],
    flows: Iterable[tuple[NDArray[np.floating], NDArray[np.floating]]],
    *,
    gap_seconds: float,
) -> None:
    """Write the signals "flow" and "flow_seconds" of a clip.

    Args:
        path: Archive beside the clip, such as `walk.signals.npz`.
        seconds: Time of each frame after the first, increasing.
        flows: Flow of each frame to the later and to the earlier one in pixels, shape (height,
            width, 2) each; infinite where unknown.
        gap_seconds: Time between the frames of each flow.

    """
    # (frames, direction, axis, height, width)
    stacked = np.stack([np.stack(pair).transpose(0, 3, 1, 2) for pair in flows])
    # Half precision is exact to 1/32 pixel up to 64 pixels.
    flow = np.where(np.isfinite(stacked), stacked, UNKNOWN).clip(-UNKNOWN, UNKNOWN)
    arrays = {
        "seconds": np.asarray(seconds, np.float64),
        "flow": flow.astype(np.float16),
        "flow_seconds": np.full(len(flow), gap_seconds, np.float32),
    }
    write_atomically(Path(path), lambda file: np.savez_compressed(file, **arrays))


def record_flow_folder(
    folder: Path | str, path: Path | str, *, fps: float, gap_frames: int
) -> None:
    """Write the signals of a clip from files of flow, such as those of another program.

    Args:
        folder: Contains `forward` and `backward` with one file per frame (`.flo` or another
            format of `read_flow`). The last number in a name is that of the frame, from 0; a
            frame without file has unknown flow.
        path: Archive beside the clip, such as `walk.signals.npz`.
        fps: Frame rate of the clip.
        gap_frames: Distance from the source frame to the target frame of each flow, in frames.

    Raises:
        MidwayError: There are no files, or a file is damaged or of another size.

    """
    named = [_numbered(Path(folder) / part) for part in ("forward", "backward")]
    numbers = [number for files in named for number in files]
    if not numbers:
        raise MidwayError(f"{folder}: no flow in forward and backward; write one file per frame")
    size = read_flow(next(iter((named[0] or named[1]).values()))).shape
    unknown = np.full(size, np.inf, np.float32)

    def flow(file: Path | None) -> NDArray[np.float32]:
        found = unknown if file is None else read_flow(file)
        if found.shape != size:
            raise MidwayError(
                f"{file}: flow of shape {found.shape}, not {size} as in the first; write one size"
            )
        return found

    frames = range(max(numbers) + 1)
    write_recorded_flow(
        path,
        [number / fps for number in frames],
        ((flow(named[0].get(number)), flow(named[1].get(number))) for number in frames),
        gap_seconds=gap_frames / fps,
    )


def _numbered(folder: Path) -> dict[int, Path]:
    """Return the files of a folder by the last number in their names."""
    found = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if digits := re.findall(r"\d+", file.stem):
            found[int(digits[-1])] = file
    return found
