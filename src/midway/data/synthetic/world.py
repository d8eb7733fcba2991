"""A synthetic world: textured objects over a moving background, with exact motion and masks.

Everything is a pure function of (config, seed, seconds), for any time. A world is a stack of
surfaces, the background first; each moves as a rigid whole that turns and grows a little, so the
flow between any two times follows from two poses, and occlusion from the outlines above. Writers
put worlds on disk in the layouts that the data loaders read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from midway.data.synthetic.motion import Motion
from midway.data.synthetic.textures import BACKDROPS, TEXTURES, Array, Backdrop, Outline, Texture
from midway.errors import MidwayError

CLASS_NAMES: tuple[str, ...] = ("background", *TEXTURES)
"""Names of the classes; the index is the class id."""

EVEN_STEP = np.array([0.7549, 0.5698])
"""Multiples of it, modulo 1, fill the unit square evenly (Roberts' R2 sequence)."""


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Size, length and liveliness of synthetic worlds."""

    height: int = 96
    width: int = 128
    num_frames: int = 60
    fps: float = 30.0
    num_objects: int = 5
    object_size: tuple[float, float] = (0.2, 0.45)
    """How wide the smallest and the largest object are, as shares of the height."""
    object_speed: float = 12.0
    """Root mean square speed of an object's own motion in pixels per second."""
    camera_speed: float = 8.0
    """Root mean square speed of the background in pixels per second; objects follow it."""
    camera_reach: tuple[float, float] = (0.15, 0.15)
    """How far the background swings to either side along x and y, as shares of the height; 0 for
    no motion along that axis."""
    pan_speed: float = 0.0
    """Constant speed of the background beside its swing, in pixels per second: to the right in
    worlds of even seed, to the left in others. The camera follows its objects: they stay."""
    backdrop: Literal["blots", "clouds"] = "blots"
    """Even blots of four colours, or clouds of which no two places look alike."""
    backdrop_periods: tuple[float, float] = (0.25, 0.9)
    """Shortest and longest period of the backdrop, as shares of the height."""
    texture_period_pixels: tuple[float, float] = (6.0, 10.0)
    """Shortest and longest period of the objects' textures."""
    saturation: float = 1.0
    """Of all colours: 1 for any colour, 0 for greys."""

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 16 or self.num_frames < 1 or self.fps <= 0:
            raise MidwayError(
                f"world too small: {self.height} x {self.width} pixels, {self.num_frames} frames, "
                f"{self.fps} fps; give at least 16 x 16 pixels, one frame and a positive fps"
            )
        if not 0 <= self.num_objects <= 255:
            raise MidwayError(
                f"wrong number of objects: {self.num_objects}; give 0 to 255, as masks are 8 bit"
            )
        smallest, largest = self.object_size
        if not 0 < smallest <= largest:
            raise MidwayError(
                f"wrong object size: {smallest} to {largest}; give 0 < smallest <= largest"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class WorldFrame:
    """What a world shows at one time."""

    image: NDArray[np.uint8]
    """RGB, shape (height, width, 3)."""
    instances: NDArray[np.uint8]
    """Object seen at each pixel, 0 the background, higher numbers nearer."""
    classes: NDArray[np.uint8]
    """Index into `CLASS_NAMES` at each pixel."""
    seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Flow:
    """Where each source pixel goes, and whether it can still be seen there."""

    flow: NDArray[np.float32]
    """Pixels to the right and down, shape (height, width, 2)."""
    occluded: NDArray[np.bool_]
    """The surface point is behind a nearer object, or outside the frame, at the target time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WorldObject:
    """One thing of the world: where it is, how it looks and what it is."""

    motion: Motion
    outline: Outline
    texture: Texture
    class_id: int

    def distance(self, x: Array, y: Array, seconds: float) -> Array:
        """About the distance in pixels of image points to the outline, below zero inside."""
        return self.outline.distance(*self.motion.to_surface(x, y, seconds))

    def box(self, seconds: float) -> tuple[slice, slice]:
        """Rows and columns of the image that hold the object."""
        x, y, cos, sin = self.motion.pose(seconds)
        reach = self.outline.radius * np.hypot(cos, sin) + 1
        return (
            slice(max(0, int(y - reach)), max(0, int(y + reach) + 2)),
            slice(max(0, int(x - reach)), max(0, int(x + reach) + 2)),
        )


class World:
    """One scene without beginning or end, drawn by `seed`; a `look_seed` dresses it otherwise."""

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
        # Whole rounds of all classes keep them equally frequent.
        rounds = -(-config.num_objects // len(TEXTURES))
        class_ids = rng.permuted(np.tile(1 + np.arange(len(TEXTURES)), (rounds, 1)), axis=1)
        offset = rng.uniform(0, 1, 2)
        self._objects = [
            self._object(rng, int(class_id), place=(offset + number * EVEN_STEP) % 1)
            for number, class_id in enumerate(class_ids.flat[: config.num_objects])
        ]
        if look_seed is not None:
            self._backdrop, self._objects = other_looks(config, self._objects, look_seed)

    def frame(self, seconds: float) -> WorldFrame:
        """The image and its masks at any time."""
        x, y = self._pixels(np.float32)
        canvas = self._backdrop.colour(*self._camera.to_surface(x, y, seconds))
        instances = np.zeros(x.shape, np.uint8)
        for number, thing in enumerate(self._objects, start=1):
            box = thing.box(seconds)
            local = thing.motion.to_surface(x[box], y[box], seconds)
            distance = thing.outline.distance(*local)
            opacity = np.clip(0.5 - distance, 0, 1)[..., None]
            canvas[box] += opacity * (thing.texture.colour(*local) - canvas[box])
            instances[box][distance < 0] = number
        class_of = np.array([0, *(thing.class_id for thing in self._objects)], np.uint8)
        return WorldFrame(
            image=np.rint(255 * np.clip(canvas, 0, 1)).astype(np.uint8),
            instances=instances,
            classes=class_of[instances],
            seconds=seconds,
        )

    def flow(self, source_seconds: float, target_seconds: float) -> Flow:
        """Exact flow of every source pixel, and which of them the target frame does not show.

        A pixel is a point at its centre; the frame reaches half a pixel beyond the outermost ones.
        """
        instances = self.frame(source_seconds).instances
        x, y = self._pixels(np.float64)
        flow = np.empty((*x.shape, 2), np.float32)
        occluded = np.empty(x.shape, np.bool_)
        motions = [self._camera, *(thing.motion for thing in self._objects)]
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
        """Flow (u, v) of the background at the image centre, seen or not, in pixels."""
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


def other_looks(
    config: "WorldConfig", things: Sequence["WorldObject"], seed: int
) -> tuple[Backdrop, list["WorldObject"]]:
    """Backdrop and objects with colours, textures and classes drawn anew.

    Outlines stay: with motion they decide what is seen where, and so the flow.

    Args:
        config: Of the world.
        things: Its objects.
        seed: Of the looks alone.

    """
    # A stream of its own: the looks of seed 3 are not those that world 3 has.
    rng = np.random.default_rng([seed, len(things)])
    backdrop = BACKDROPS[config.backdrop].random(
        rng,
        saturation=config.saturation,
        periods=tuple(share * config.height for share in config.backdrop_periods),
    )
    families = list(TEXTURES)
    dressed = []
    for thing in things:
        class_id = int(rng.integers(len(families)))
        texture = Texture.random(
            rng,
            families[class_id],
            period_pixels=config.texture_period_pixels,
            saturation=config.saturation,
            size=2 * thing.outline.half_width,
        )
        dressed.append(replace(thing, texture=texture, class_id=1 + class_id))
    return backdrop, dressed
