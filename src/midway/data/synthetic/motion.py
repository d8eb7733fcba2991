"""Motion of the surfaces of a synthetic world, in closed form."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from midway.data.synthetic.textures import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Motion:
    """Pose (x, y in pixels, angle, log scale) that oscillates about its mean as a sum of sines.

    Paths are smooth, unlimited in time, and bounded unless there is a `drift`.
    """

    mean: Array
    """Mean pose, shape (4,)."""
    amplitudes: Array
    """Amplitude of each sine and component of the pose, shape (sines, 4)."""
    frequencies: Array
    """Angular frequencies in radians per second, shape (sines, 4)."""
    phases: Array
    """Phases in radians, shape (sines, 4)."""
    drift: float = 0.0
    """Constant velocity of the mean to the right, in pixels per second."""

    @classmethod
    def random(
        cls,
        rng: np.random.Generator,
        *,
        mean: Array,
        reach: Array,
        speed: float,
        drift: float = 0.0,
    ) -> Self:
        """Draw a motion.

        Args:
            rng: Source of all random numbers.
            mean: Mean pose, shape (4,).
            reach: Maximum deviation from the mean, shape (4,).
            speed: Root mean square speed in pixels per second, without the drift.
            drift: Constant velocity to the right in pixels per second.

        """
        shape = (2, 4)
        amplitudes = np.broadcast_to(reach / 2, shape)
        frequencies = rng.uniform(0.6, 1.4, shape)
        natural_speed = np.sqrt(((amplitudes * frequencies)[:, :2] ** 2).sum() / 2)
        return cls(
            mean=mean,
            amplitudes=amplitudes,
            frequencies=frequencies * speed / natural_speed,
            phases=rng.uniform(0, 2 * np.pi, shape),
            drift=drift,
        )

    def carried_by(self, camera: Self, parallax: float) -> "Motion":
        """Return this motion plus `parallax` times the camera's translation."""
        shifts = camera.amplitudes * np.array([parallax, parallax, 0, 0])
        return Motion(
            mean=self.mean,
            amplitudes=np.concatenate([self.amplitudes, shifts]),
            frequencies=np.concatenate([self.frequencies, camera.frequencies]),
            phases=np.concatenate([self.phases, camera.phases]),
        )

    def pose(self, seconds: float) -> tuple[float, float, float, float]:
        """Return the surface's origin (x, y), and scale times cosine and sine of its angle."""
        deviation = self.amplitudes * np.sin(self.frequencies * seconds + self.phases)
        x, y, angle, log_scale = (self.mean + deviation.sum(axis=0)).tolist()
        scale = np.exp(log_scale)
        return (
            x + self.drift * seconds,
            y,
            float(scale * np.cos(angle)),
            float(scale * np.sin(angle)),
        )

    def to_image(self, x: Array, y: Array, seconds: float) -> tuple[Array, Array]:
        """Convert surface coordinates to image coordinates, both in pixels."""
        origin_x, origin_y, cos, sin = self.pose(seconds)
        return origin_x + cos * x - sin * y, origin_y + sin * x + cos * y

    def to_surface(self, x: Array, y: Array, seconds: float) -> tuple[Array, Array]:
        """Convert image coordinates to surface coordinates, both in pixels."""
        origin_x, origin_y, cos, sin = self.pose(seconds)
        x, y = (x - origin_x) / (cos**2 + sin**2), (y - origin_y) / (cos**2 + sin**2)
        return cos * x + sin * y, cos * y - sin * x
