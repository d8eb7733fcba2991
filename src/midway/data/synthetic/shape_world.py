"""Recognition world: objects of several parts, whose arrangement identifies the class.

A frame is a pure function of (config, seed, seconds), equal on all machines. Each object moves
rigidly over a moving backdrop. Textures and colours are drawn anew for each object and the backdrop
from the same distributions, so that neither identifies a class; neither does size, angle or place.
With a finite `paint_seconds` they fade into others while shapes and motion persist, so that frames
some time apart agree in shapes only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

import numpy as np

from midway.data.synthetic import rigid
from midway.data.synthetic.motion import Motion
from midway.data.synthetic.noise import Fading, Mosaic, Paint
from midway.data.synthetic.rigid import Array, RigidObject, RigidWorld, centre, rounded
from midway.data.synthetic.shapes import SHAPES, Shape
from midway.data.synthetic.world import check_scene
from midway.errors import MidwayError

SHAPE_CLASSES: tuple[str, ...] = ("background", *SHAPES)
"""Names of the classes; the index is the class id."""


@dataclass(frozen=True, kw_only=True)
class ShapeWorldConfig:
    """Size, length, motion and appearance of recognition worlds."""

    height: int = 96
    width: int = 128
    num_frames: int = 30
    fps: float = 15.0
    num_objects: int = 6
    object_size: tuple[float, float] = (0.28, 0.34)
    """Range of the objects' diameter, as a fraction of the height."""
    thickness: tuple[float, float] = (0.25, 0.29)
    """Range of the parts' thickness, as a fraction of the diameter."""
    tilt: float = 0.4
    """Largest angle between an object's axis and its upright pose in radians, without motion."""
    classes_per_scene: int = 1
    """Number of different classes in a scene; objects of a scene share classes if there are fewer
    than objects."""
    object_speed: float = 14.0
    """Root mean square speed of an object's independent motion in pixels per second."""
    camera_speed: float = 8.0
    """Root mean square speed of the background in pixels per second; objects move with it."""
    texture_periods: tuple[float, float] = (5.0, 14.0)
    """Shortest and longest period of the textures in pixels."""
    paint_seconds: float = inf
    """Time in which textures and colours of a surface fade into others; inf if they never do."""
    texture_contrast: float = 0.12
    """Largest difference between the two colours of a texture, per channel."""
    object_tones: tuple[float, float] = (0.5, 0.95)
    """Range of red, green and blue of the objects' colours, drawn for each object."""
    backdrop_tones: tuple[float, float] = (0.05, 0.35)
    """Range of red, green and blue of the backdrop: darker, as in haze, so that outlines are easy
    and the classes are what is left to recognise."""
    backdrop_saturation: float = 0.3
    """Saturation of the backdrop's colours, 0 for greys: nearly grey, so that two crops of a scene
    have more in common than the colour of its backdrop."""
    backdrop_patches: tuple[float, float] = (40.0, 80.0)
    """Shortest and longest period of the outlines in the backdrop in pixels."""
    light_change: float = 0.2
    """Largest relative change of brightness, over the frame and over time."""

    def __post_init__(self) -> None:
        check_scene(self)
        if not self.paint_seconds > 0:
            raise MidwayError(
                f"paint_seconds = {self.paint_seconds}; give a time above 0, inf for constant paint"
            )
        if not 1 <= self.classes_per_scene <= len(SHAPES):
            raise MidwayError(
                f"classes_per_scene = {self.classes_per_scene}; give 1 to {len(SHAPES)}"
            )

    def build(self, seed: int) -> "ShapeWorld":
        """Return the world of a seed."""
        return ShapeWorld(self, seed)


class ShapeWorld(RigidWorld):
    """Scene generated from `seed`, of unlimited duration."""

    def __init__(self, config: ShapeWorldConfig, seed: int) -> None:
        self.config = config
        rng = np.random.default_rng(seed)
        height, width = config.height, config.width
        self._camera = Motion.random(
            rng,
            mean=np.array([*centre(config), 0, 0]),
            reach=np.array([0.1 * height, 0.1 * height, 0.03, 0.04]),
            speed=config.camera_speed,
        )
        self._draw_paint = partial(
            Paint.random,
            periods=config.texture_periods,
            contrast=config.texture_contrast,
            tones=config.object_tones,
        )
        draw_backdrop = partial(
            Mosaic.random,
            periods=config.texture_periods,
            contrast=config.texture_contrast,
            tones=config.backdrop_tones,
            saturation=config.backdrop_saturation,
            patches=config.backdrop_patches,
        )
        backdrop = draw_backdrop(rng)
        # Brightness: amplitude, frequency and phase of the change over x, y and time.
        self._lights = rng.uniform([0.3, 0.5, 0], [1, 1.5, 2 * np.pi], (3, 3))
        classes = 1 + rng.permutation(len(SHAPES))[: config.classes_per_scene]
        # One object per cell of a grid, in random order from back to front.
        rows = max(1, round((config.num_objects * height / width) ** 0.5))
        grid = (rows, -(-config.num_objects // rows))
        cells = rng.permutation(grid[0] * grid[1])[: config.num_objects]
        objects = [
            self._object(rng, int(classes[number % len(classes)]), divmod(int(cell), grid[1]), grid)
            for number, cell in enumerate(cells)
        ]
        super().__init__(config, self._camera, backdrop, objects)
        # Paints at time 0 are drawn above, so that they are those of the world of constant paint.
        draws = [draw_backdrop, *[self._draw_paint] * len(objects)]
        self._fading = [
            Fading(first=first, draw=draw, seed=(seed, surface), seconds=config.paint_seconds)
            for surface, (first, draw) in enumerate(zip(super()._paints(0.0), draws, strict=True))
        ]

    def _paints(self, seconds: float) -> Sequence[rigid.Paint]:
        return [fading.at(seconds) for fading in self._fading]

    def _light(self, canvas: Array, x: Array, y: Array, seconds: float) -> None:
        """Multiply a frame by its brightness: a slope over the frame that turns with time."""
        amplitude, frequency, phase = self._lights.T
        slope_x, slope_y, all_over = rounded(
            self.config.light_change * amplitude * np.sin(frequency * seconds + phase)
        ).tolist()
        across = (x - float(self._centre[0])) / self.config.width
        down = (y - float(self._centre[1])) / self.config.height
        canvas *= (1 + all_over + slope_x * across + slope_y * down)[..., None]

    def _object(
        self,
        rng: np.random.Generator,
        class_id: int,
        cell: tuple[int, int],
        grid: tuple[int, int],
    ) -> RigidObject:
        config = self.config
        size = rng.uniform(*config.object_size) * config.height
        # Cells and places are (row, column), poses (x, y).
        place = (np.array(cell) + rng.uniform(0.35, 0.65, 2)) / grid
        frame = np.array([config.width, config.height])
        motion = Motion.random(
            rng,
            mean=np.array([*(place[::-1] * frame), rng.uniform(-config.tilt, config.tilt), 0]),
            reach=np.array([*(0.06 * frame), 0.3, 0.08]),
            speed=config.object_speed,
        )
        return RigidObject(
            motion=motion.carried_by(self._camera, parallax=rng.uniform(1, 1.5)),
            shape=Shape.random(
                rng,
                SHAPE_CLASSES[class_id],
                size=size,
                thickness=rng.uniform(*config.thickness),
            ),
            paint=self._draw_paint(rng),
            class_id=class_id,
        )
