"""Walks of a camera over a still picture: videos whose every step is a recorded action.

The picture is a frame of a synthetic world, larger than the camera's view. At each frame the camera
makes one of a fixed set of steps. `view` shows the picture from any place, so a planner's choices
can be carried out.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from midway.atomic import write_atomically
from midway.config import check_at_least
from midway.data.signals import SUFFIX
from midway.data.synthetic.world import World, WorldConfig
from midway.data.synthetic.write import scene_name
from midway.data.video.writer import writing_video
from midway.errors import MidwayError

Place = NDArray[np.int64]
"""Column and row of the upper left pixel of the view in the picture, shape (2,)."""


@dataclass(frozen=True, kw_only=True)
class WalkConfig:
    """Picture, view and steps of a walk."""

    picture: WorldConfig = field(
        default_factory=lambda: WorldConfig(
            height=144,
            width=144,
            num_objects=10,
            object_size=(0.1, 0.25),
            backdrop="clouds",
            backdrop_periods=(0.06, 0.25),
            texture_period_pixels=(12.0, 20.0),
        )
    )
    """World whose first frame is the picture."""
    side: int = 48
    """Height and width of the view in pixels."""
    stride: int = 4
    """Shortest step of the camera along an axis in pixels."""
    reach: int = 2
    """Longest step along an axis in strides: there are (2 * reach + 1) ** 2 actions."""
    num_frames: int = 16
    fps: float = 4.0

    def __post_init__(self) -> None:
        check_at_least("walk", self, side=16, stride=1, reach=1, num_frames=1)
        if self.side % 2 or not 0 < self.fps < inf:
            raise MidwayError(
                f"walk: side = {self.side}, fps = {self.fps}; give an even side and a finite, "
                "positive fps"
            )
        room = min(self.picture.height, self.picture.width) - self.side
        if room < self.longest:
            raise MidwayError(
                f"walk: the picture exceeds the view by {room} pixels, less than a step of "
                f"{self.longest}; give a larger picture"
            )

    @property
    def longest(self) -> int:
        """Longest step along an axis in pixels."""
        return self.stride * self.reach

    @property
    def actions(self) -> NDArray[np.float32]:
        """All actions (x, y), in units of the longest step: from -1 to 1, shape (actions, 2)."""
        steps = np.arange(-self.reach, self.reach + 1) / self.reach
        x, y = np.meshgrid(steps, steps)
        return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)


class Walk:
    """A picture, and a camera that walks over it.

    Args:
        config: Options of the walk.
        seed: Seed of the picture and of the path.
    """

    def __init__(self, config: WalkConfig, seed: int) -> None:
        self.config = config
        self.picture = World(config.picture, seed).frame(0).image
        # A separate stream of random numbers, so that the path does not follow from the picture.
        self._rng = np.random.default_rng([seed, config.side])
        self._room = np.array([config.picture.width, config.picture.height]) - config.side

    def view(self, place: Place) -> NDArray[np.uint8]:
        """Return the view from a place, RGB (side, side, 3)."""
        column, row = place.tolist()
        return self.picture[row : row + self.config.side, column : column + self.config.side]

    def moved(self, place: Place, action: NDArray[np.floating]) -> Place:
        """Return the place after an action; the camera stops at the edges of the picture."""
        step = np.rint(action * self.config.longest).astype(np.int64)
        return np.clip(place + step, 0, self._room)

    def random_place(self) -> Place:
        """Draw a place, at a multiple of the stride from the upper left corner."""
        return self.config.stride * self._rng.integers(0, self._room // self.config.stride + 1)

    def path(self, num_frames: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Draw a walk from a random place, of random actions that no edge cuts short.

        Args:
            num_frames: Frames of the walk.

        Returns:
            Place of each frame, shape (frames, 2); and the action that leads from each frame to the
            next, shape (frames, 2). The last action is not carried out.
        """
        place, places, taken = self.random_place(), [], []
        for _ in range(num_frames):
            ends = place + np.rint(self.config.actions * self.config.longest).astype(np.int64)
            possible = np.flatnonzero(((ends >= 0) & (ends <= self._room)).all(1))
            chosen = self._rng.choice(possible)
            places.append(place)
            taken.append(self.config.actions[chosen])
            place = ends[chosen]
        return np.stack(places), np.stack(taken)


def write_walks(folder: Path | str, config: WalkConfig, *, seeds: Iterable[int]) -> list[Path]:
    """Write `world_SEED.mp4` and its actions, `world_SEED.signals.npz`, for each seed.

    Args:
        folder: Destination, created if needed.
        config: Options of the walks.
        seeds: Seeds of the walks.

    Returns:
        Paths of the videos, in the order of `seeds`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed in seeds:
        walk = Walk(config, seed)
        places, actions = walk.path(config.num_frames)
        paths.append(folder / f"{scene_name(seed)}.mp4")
        with writing_video(paths[-1], config.fps, options={"crf": "18"}) as write:
            for place in places:
                write(walk.view(place))
        arrays = {"seconds": np.arange(config.num_frames) / config.fps, "action": actions}
        path = folder / f"{scene_name(seed)}{SUFFIX}"
        write_atomically(path, lambda file, arrays=arrays: np.savez_compressed(file, **arrays))
    return paths
