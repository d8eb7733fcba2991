"""Made LeRobot datasets (version 3), on whose pictures the number of the frame can be read."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.data.video.made_videos import even_times, write_video

FPS = 30
CAMERAS = ("observation.images.top", "observation.images.wrist")
BITS, SIDE = 12, 16


def numbered(number: int) -> NDArray[np.uint8]:
    """Twelve white or black squares: the binary digits of a number."""
    digits = (number >> np.arange(BITS)) & 1
    grid = digits.reshape(3, 4).repeat(SIDE, 0).repeat(SIDE, 1)
    return np.repeat(255 * grid[..., None], 3, axis=2).astype(np.uint8)


def read_number(image: NDArray[np.uint8]) -> int:
    """Number of a frame that `numbered` made, after a lossy codec."""
    squares = image.reshape(3, SIDE, 4, SIDE, 3).mean((1, 3, 4)).ravel() > 127
    return int((squares << np.arange(BITS)).sum())


@dataclass(frozen=True)
class LeRobotSet:
    """Episodes of given numbers of frames in video files of several episodes each.

    Frames are numbered through all episodes; camera 1 shows 2048 more.
    """

    folder: Path
    lengths: tuple[int, ...]
    """Frames of each episode."""
    num_files: int
    num_cameras: int = 1

    @property
    def ends(self) -> NDArray[np.int64]:
        """Number of the frame after the last one of each episode."""
        return np.cumsum(self.lengths)

    def episode_of(self, number: int) -> int:
        return int(np.searchsorted(self.ends, number, side="right"))

    @cached_property
    def actions(self) -> NDArray[np.float32]:
        """Action of each frame: any bits that are a finite number."""
        bits = np.random.default_rng(0).integers(0, 2**32, (int(self.ends[-1]), 7), dtype=np.uint32)
        values = bits.view(np.float32)
        return np.where(np.isfinite(values), values, np.float32(1.5))

    @cached_property
    def states(self) -> NDArray[np.float32]:
        return np.random.default_rng(1).normal(size=int(self.ends[-1])).astype(np.float32)

    def write(self) -> "LeRobotSet":
        """Write videos, tables of episodes and tables of signals."""
        rows = []
        for file, episodes in enumerate(
            np.array_split(np.arange(len(self.lengths)), self.num_files)
        ):
            start = 0
            for episode in episodes.tolist():
                rows.append(self._row(episode, file, start))
                start += self.lengths[episode]
            first = int(self.ends[episodes[0]]) - self.lengths[episodes[0]]
            for place, camera in enumerate(CAMERAS[: self.num_cameras]):
                video = self.folder / f"videos/{camera}/chunk-000/file-{file:03}.mp4"
                video.parent.mkdir(parents=True, exist_ok=True)
                write_video(
                    video,
                    even_times(start, FPS),
                    picture=lambda n, first=first, place=place: numbered(first + n + 2048 * place),
                    rate=FPS,
                    gop=2,
                )
        self._write_table("meta/episodes/chunk-000/file-000.parquet", rows)
        self._write_signals()
        (self.folder / "meta/info.json").write_text('{"codebase_version": "v3.0", "fps": 30}')
        return self

    def _row(self, episode: int, file: int, start: int) -> dict[str, object]:
        row: dict[str, object] = {
            "episode_index": episode,
            "tasks": ["lift the cube"],
            "length": self.lengths[episode],
            "data/chunk_index": 0,
            "data/file_index": episode % 2,
        }
        for camera in CAMERAS[: self.num_cameras]:
            row[f"videos/{camera}/chunk_index"] = 0
            row[f"videos/{camera}/file_index"] = file
            row[f"videos/{camera}/from_timestamp"] = start / FPS
            row[f"videos/{camera}/to_timestamp"] = (start + self.lengths[episode]) / FPS
        return row

    def _write_signals(self) -> None:
        """Write the rows of even episodes into one table, those of odd ones into another."""
        frames = np.arange(int(self.ends[-1]))
        episodes = np.searchsorted(self.ends, frames, side="right")
        in_episode = frames - (self.ends - np.array(self.lengths))[episodes]
        for file in (0, 1):
            rows = [
                {
                    "action": self.actions[frame],
                    "observation.state": self.states[frame],
                    "timestamp": np.float32(in_episode[frame] / FPS),
                    "frame_index": in_episode[frame],
                    "episode_index": episodes[frame],
                }
                for frame in frames[episodes % 2 == file]
            ]
            self._write_table(f"data/chunk-000/file-{file:03}.parquet", rows)

    def _write_table(self, name: str, rows: list[dict[str, object]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path)
