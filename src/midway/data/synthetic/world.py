"""Synthetic worlds: textured objects over a moving background, with exact flow and masks.

A frame is a pure function of (config, seed, seconds), for any time. A world is a stack of surfaces,
the background first. Each surface moves by a similarity transform, so the flow between any two
times follows from two poses, and occlusion from the outlines of nearer surfaces.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from midway.data.synthetic.motion import Motion
from midway.data.synthetic.textures import BACKDROPS, TEXTURES, Array, Backdrop, Outline, Texture
from midway.errors import MidwayError

CLASS_NAMES: tuple[str, ...] = ("background", *TEXTURES)
"""Names of the classes; the index is the class id."""

EVEN_STEP = np.array([0.7549, 0.5698])
"""Step of Roberts' R2 sequence, modulo 1: its multiples cover the unit square evenly."""


def check_scene(config: Any) -> None:
    """Check size, length, rate and number of objects of a world's configuration.

    Raises:
        MidwayError: A value is too small, too large or not finite.

    """
    frames = config.num_frames
    if min(config.height, config.width) < 16 or frames < 1 or not 0 < config.fps < inf:
        raise MidwayError(
            f"world too small: {config.height} x {config.width} pixels, {frames} frames, "
            f"{config.fps} fps; give at least 16 x 16 pixels, one frame and a finite, positive fps"
        )
    if not 0 <= config.num_objects <= 255:
        raise MidwayError(
            f"wrong number of objects: {config.num_objects}; give 0 to 255, as masks are 8 bit"
        )


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Size, length, motion and appearance of synthetic worlds."""

    height: int = 96
    width: int = 128
    num_frames: int = 60
    fps: float = 30.0
    num_objects: int = 5
    object_size: tuple[float, float] = (0.2, 0.45)
    """Range of the objects' diameter, as a fraction of the height."""
    object_speed: float = 12.0
    """Root mean square speed of an object's independent motion in pixels per second."""
    camera_speed: float = 8.0
    """Root mean square speed of the background in pixels per second; objects move with it."""
    camera_reach: tuple[float, float] = (0.15, 0.15)
    """Maximum displacement of the background along x and y, as a fraction of the height; 0 for no
    motion along that axis."""
    pan_speed: float = 0.0
    """Constant velocity added to the background, in pixels per second: to the right for even
    seeds, to the left for odd ones. The camera follows the objects, so they do not drift."""
    backdrop: Literal["blots", "clouds"] = "blots"
    """Uniform blots in four colours, or clouds with unique local appearance."""
    backdrop_periods: tuple[float, float] = (0.25, 0.9)
    """Shortest and longest period of the backdrop, as a fraction of the height."""
    texture_period_pixels: tuple[float, float] = (6.0, 10.0)
    """Shortest and longest period of the objects' textures in pixels."""
    saturation: float = 1.0
    """Saturation of all colours: 1 for any colour, 0 for greys."""

    def __post_init__(self) -> None:
        check_scene(self)
        smallest, largest = self.object_size
        if not 0 < smallest <= largest:
            raise MidwayError(
                f"wrong object size: {smallest} to {largest}; give 0 < smallest <= largest"
            )

    def build(self, seed: int) -> "World":
        """Return the world of a seed."""
        return World(self, seed)


@dataclass(frozen=True, kw_only=True, eq=False)
class WorldFrame:
    """Image and masks of a world at one time."""

    image: NDArray[np.uint8]
    """RGB, shape (height, width, 3)."""
    instances: NDArray[np.uint8]
    """Visible object at each pixel: 0 is the background, higher numbers are nearer."""
    classes: NDArray[np.uint8]
    """Class id of each pixel, an index into `CLASS_NAMES`."""
    seconds: float
    """Time of the frame."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Flow:
    """Ground-truth flow and occlusion of each source pixel."""

    flow: NDArray[np.float32]
    """Displacement to the right and down in pixels, shape (height, width, 2)."""
    occluded: NDArray[np.bool_]
    """True where the surface point is occluded or outside the frame at the target time, shape
    (height, width)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WorldObject:
    """Object of a world: its motion, appearance and class."""

    motion: Motion
    outline: Outline
    texture: Texture
    class_id: int

    def distance(self, x: Array, y: Array, seconds: float) -> Array:
        """Return the approximate signed distance of image points in pixels, negative inside."""
        return self.outline.distance(*self.motion.to_surface(x, y, seconds))

    def box(self, seconds: float) -> tuple[slice, slice]:
        """Return the rows and columns of a bounding box of the object."""
        x, y, cos, sin = self.motion.pose(seconds)
        reach = self.outline.radius * np.hypot(cos, sin) + 1
        return (
            slice(max(0, int(y - reach)), max(0, int(y + reach) + 2)),
            slice(max(0, int(x - reach)), max(0, int(x + reach) + 2)),
        )


class World:
    """Scene generated from `seed`, of unlimited duration.

    Args:
        config: Options of the world.
        seed: Seed of motion and appearance.
        look_seed: Seed that re-samples the appearance only: colours, textures and classes; None
            keeps that of `seed`.
    """

    def __init__(self, config: WorldConfig, seed: int, *, look_seed: int | None = None) -> None:
        self.config = config
        rng = np.random.default_rng(seed)
        height, width = config.height, config.width
        self._centre = np.array([(width - 1) / 2, (height - 1) / 2])
        self._camera = Motion.random(
            rng,
            mean=np.array([*self._centre, 0, 0]),
            reach=np.array([*(share * height for share in config.camera_reach), 0.03, 0.04]),
            speed=config.camera_speed,
            drift=-config.pan_speed if seed % 2 else config.pan_speed,
        )
        self._backdrop = BACKDROPS[config.backdrop].random(
            rng,
            saturation=config.saturation,
            periods=tuple(share * height for share in config.backdrop_periods),
        )
        # Concatenated permutations of all classes keep them equally frequent.
        rounds = -(-config.num_objects // len(TEXTURES))
        class_ids = rng.permuted(np.tile(1 + np.arange(len(TEXTURES)), (rounds, 1)), axis=1)
        offset = rng.uniform(0, 1, 2)
        self._objects = [
            self._object(rng, int(class_id), place=(offset + number * EVEN_STEP) % 1)
            for number, class_id in enumerate(class_ids.flat[: config.num_objects])
        ]
        if look_seed is not None:
            self._backdrop, self._objects = _resample_appearance(config, self._objects, look_seed)

    def frame(self, seconds: float) -> WorldFrame:
        """Render the image and its masks at any time."""
        x, y = self._pixels(np.float32)
        canvas = self._backdrop.colour(*self._camera.to_surface(x, y, seconds))
        instances = np.zeros(x.shape, np.uint8)
        for number, item in enumerate(self._objects, start=1):
            box = item.box(seconds)
            local = item.motion.to_surface(x[box], y[box], seconds)
            distance = item.outline.distance(*local)
            # Antialiasing: the outline covers a pixel partly within half a pixel.
            opacity = np.clip(0.5 - distance, 0, 1)[..., None]
            canvas[box] += opacity * (item.texture.colour(*local) - canvas[box])
            instances[box][distance < 0] = number
        class_of = np.array([0, *(item.class_id for item in self._objects)], np.uint8)
        return WorldFrame(
            image=np.rint(255 * np.clip(canvas, 0, 1)).astype(np.uint8),
            instances=instances,
            classes=class_of[instances],
            seconds=seconds,
        )

    def flow(self, source_seconds: float, target_seconds: float) -> Flow:
        """Return the exact flow and occlusion of every source pixel.

        A pixel is a point at its centre; the frame extends half a pixel beyond the outermost ones.
        """
        instances = self.frame(source_seconds).instances
        x, y = self._pixels(np.float64)
        flow = np.empty((*x.shape, 2), np.float32)
        occluded = np.empty(x.shape, np.bool_)
        motions = [self._camera, *(item.motion for item in self._objects)]
        for number, motion in enumerate(motions):
            seen = instances == number
            there_x, there_y = motion.to_image(
                *motion.to_surface(x[seen], y[seen], source_seconds), target_seconds
            )
            flow[seen] = np.stack([there_x - x[seen], there_y - y[seen]], axis=-1)
            hidden = (np.abs(there_x - self._centre[0]) > self.config.width / 2) | (
                np.abs(there_y - self._centre[1]) > self.config.height / 2
            )
            for nearer in self._objects[number:]:
                hidden |= nearer.distance(there_x, there_y, target_seconds) < 0
            occluded[seen] = hidden
        return Flow(flow=flow, occluded=occluded)

    def camera_motion(self, source_seconds: float, target_seconds: float) -> Array:
        """Return the background flow (u, v) in pixels at the image centre, even if occluded."""
        x, y = self._camera.to_surface(self._centre[0], self._centre[1], source_seconds)
        return np.array(self._camera.to_image(x, y, target_seconds)) - self._centre

    def _pixels(self, dtype: type[np.floating]) -> tuple[Array, Array]:
        rows, columns = np.indices((self.config.height, self.config.width), dtype)
        return columns, rows

    def _object(self, rng: np.random.Generator, class_id: int, place: Array) -> WorldObject:
        config = self.config
        size = rng.uniform(*config.object_size) * config.height
        frame = np.array([config.width, config.height])
        motion = Motion.random(
            rng,
            mean=np.array([*((0.15 + 0.7 * place) * frame), rng.uniform(0, 2 * np.pi), 0]),
            reach=np.array([*(0.2 * frame), 0.6, 0.08]),
            speed=config.object_speed,
        )
        return WorldObject(
            motion=motion.carried_by(self._camera, parallax=rng.uniform(1, 1.5)),
            outline=Outline.random(rng, size=size),
            texture=Texture.random(
                rng,
                CLASS_NAMES[class_id],
                period_pixels=config.texture_period_pixels,
                saturation=config.saturation,
                size=size,
            ),
            class_id=class_id,
        )


def _resample_appearance(
    config: WorldConfig, objects: Sequence[WorldObject], seed: int
) -> tuple[Backdrop, list[WorldObject]]:
    """Draw new colours, textures and classes of the backdrop and the objects.

    Outlines are kept, because together with the motion they determine visibility and flow.
    """
    # A separate stream of random numbers: appearance seed 3 must not reproduce world 3.
    rng = np.random.default_rng([seed, len(objects)])
    backdrop = BACKDROPS[config.backdrop].random(
        rng,
        saturation=config.saturation,
        periods=tuple(share * config.height for share in config.backdrop_periods),
    )
    families = list(TEXTURES)
    changed = []
    for item in objects:
        class_id = int(rng.integers(len(families)))
        texture = Texture.random(
            rng,
            families[class_id],
            period_pixels=config.texture_period_pixels,
            saturation=config.saturation,
            size=2 * item.outline.half_width,
        )
        changed.append(replace(item, texture=texture, class_id=1 + class_id))
    return backdrop, changed
