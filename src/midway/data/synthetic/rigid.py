"""Worlds of rigid surfaces, equal bit for bit on all machines.

Sines and random numbers may differ by a unit in the last place between platforms, so they are
rounded to `GRID` before use. All arithmetic on pixels is +, -, *, /, square root, floor and
comparisons, which IEEE 754 rounds correctly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from midway.data.synthetic.motion import Motion
from midway.data.synthetic.world import Flow, WorldFrame

Array = NDArray[np.floating]

GRID = 2.0**-14
"""Spacing of the numbers that describe a world: pixels, shares, and colours in [0, 1]."""


def rounded(values: Array | float) -> Array:
    """Round to a multiple of `GRID`."""
    return np.rint(np.asarray(values) / GRID) * GRID


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Similarity transform of a surface at one time, from surface to image coordinates."""

    x: float
    """Position of the surface's origin in pixels."""
    y: float
    cos: float
    """Scale times the cosine of the angle."""
    sin: float

    @classmethod
    def of(cls, motion: Motion, seconds: float) -> Self:
        """Return the pose of a motion at a time, rounded."""
        x, y, cos, sin = rounded(np.array(motion.pose(seconds))).tolist()
        return cls(x=x, y=y, cos=cos, sin=sin)

    @property
    def scale(self) -> float:
        """Pixels of the image per pixel of the surface."""
        return float(np.sqrt(self.cos * self.cos + self.sin * self.sin))

    def to_image(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Convert surface coordinates to image coordinates."""
        return self.x + self.cos * x - self.sin * y, self.y + self.sin * x + self.cos * y

    def to_surface(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Convert image coordinates to surface coordinates."""
        squared = self.cos * self.cos + self.sin * self.sin
        x, y = (x - self.x) / squared, (y - self.y) / squared
        return self.cos * x + self.sin * y, self.cos * y - self.sin * x


class Outline(Protocol):
    """Closed curve in surface coordinates."""

    @property
    def radius(self) -> float:
        """Upper bound on the distance of the curve from the origin, in pixels."""
        ...

    def distance(self, x: Array, y: Array) -> Array:
        """Return the signed distance to the curve in pixels, negative inside."""
        ...


class Paint(Protocol):
    """Colours of a surface."""

    def colour(self, x: Array, y: Array) -> Array:
        """Return RGB in [0, 1] at surface points, shape (..., 3)."""
        ...


class Size(Protocol):
    """Size of the frames in pixels."""

    @property
    def height(self) -> int:
        """Number of rows."""
        ...

    @property
    def width(self) -> int:
        """Number of columns."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class RigidObject:
    """Object of a world: its motion, outline, paint and class."""

    motion: Motion
    shape: Outline
    paint: Paint
    class_id: int

    def box(self, pose: Pose) -> tuple[slice, slice]:
        """Return the rows and columns of a bounding box of the object."""
        reach = self.shape.radius * pose.scale + 1
        return (
            slice(max(0, int(pose.y - reach)), max(0, int(pose.y + reach) + 2)),
            slice(max(0, int(pose.x - reach)), max(0, int(pose.x + reach) + 2)),
        )


class RigidWorld:
    """Scene of unlimited duration: objects in front of a backdrop that moves with the camera.

    Args:
        size: Size of the frames; a world's configuration has it.
        camera: Motion of the backdrop.
        backdrop: Colours of the backdrop.
        objects: Objects, the farthest first.

    """

    def __init__(
        self, size: Size, camera: Motion, backdrop: Paint, objects: Sequence[RigidObject]
    ) -> None:
        self._size, self._camera, self._backdrop, self._objects = size, camera, backdrop, objects
        self._centre = centre(size)

    def frame(self, seconds: float) -> WorldFrame:
        """Render the image and its masks at any time."""
        x, y = self._pixels(np.float32)
        backdrop, *paints = self._paints(seconds)
        canvas = backdrop.colour(*Pose.of(self._camera, seconds).to_surface(x, y))
        instances = np.zeros(x.shape, np.uint8)
        for number, (item, paint) in enumerate(zip(self._objects, paints, strict=True), start=1):
            pose = Pose.of(item.motion, seconds)
            box = item.box(pose)
            local = pose.to_surface(x[box], y[box])
            distance = item.shape.distance(*local)
            # Antialiasing: the outline covers a pixel partly within half a pixel.
            opacity = np.clip(0.5 - distance, 0, 1)[..., None]
            canvas[box] += opacity * (paint.colour(*local) - canvas[box])
            instances[box][distance < 0] = number
        self._light(canvas, x, y, seconds)
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
        source = [Pose.of(motion, source_seconds) for motion in motions]
        target = [Pose.of(motion, target_seconds) for motion in motions]
        for number in range(len(motions)):
            seen = instances == number
            there = target[number].to_image(*source[number].to_surface(x[seen], y[seen]))
            flow[seen] = np.stack([there[0] - x[seen], there[1] - y[seen]], axis=-1)
            hidden = (np.abs(there[0] - self._centre[0]) > self._size.width / 2) | (
                np.abs(there[1] - self._centre[1]) > self._size.height / 2
            )
            for nearer in range(number + 1, len(motions)):
                shape = self._objects[nearer - 1].shape
                hidden |= shape.distance(*target[nearer].to_surface(*there)) < 0
            occluded[seen] = hidden
        return Flow(flow=flow, occluded=occluded)

    def camera_motion(self, source_seconds: float, target_seconds: float) -> Array:
        """Return the background flow (u, v) in pixels at the image centre, even if occluded."""
        source, target = (Pose.of(self._camera, t) for t in (source_seconds, target_seconds))
        return np.array(target.to_image(*source.to_surface(*self._centre))) - self._centre

    def _paints(self, seconds: float) -> Sequence[Paint]:
        """Return the paints of the backdrop and the objects at a time; here, always the same."""
        return [self._backdrop, *(item.paint for item in self._objects)]

    def _light(self, canvas: Array, x: Array, y: Array, seconds: float) -> None:
        """Change the brightness of a frame in place; here, not at all."""

    def _pixels(self, dtype: type[np.floating]) -> tuple[Array, Array]:
        rows, columns = np.indices((self._size.height, self._size.width), dtype)
        return columns, rows


def centre(size: Size) -> Array:
    """Return the middle (x, y) of a frame in pixels."""
    return np.array([(size.width - 1) / 2, (size.height - 1) / 2])
