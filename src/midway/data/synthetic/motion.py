"""How the surfaces of the synthetic world move: smoothly, for ever, and exactly known."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from midway.data.synthetic.textures import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Motion:
    """A pose (x, y in pixels, angle, log scale) that swings about its mean as a sum of sines.

    Paths are smooth, never end, and never leave for good, unless there is a `drift`.
    """

    mean: Array
    amplitudes: Array
    frequencies: Array
    phases: Array
    drift: float = 0.0
    """Steady motion of the mean to the right, in pixels per second."""

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
        """A motion within `reach` of `mean` with `speed` root mean square pixels per second."""
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
        """This motion plus `parallax` times the camera's shifts."""
        shifts = camera.amplitudes * np.array([parallax, parallax, 0, 0])
        return Motion(
            mean=self.mean,
            amplitudes=np.concatenate([self.amplitudes, shifts]),
            frequencies=np.concatenate([self.frequencies, camera.frequencies]),
            phases=np.concatenate([self.phases, camera.phases]),
        )

    def pose(self, seconds: float) -> tuple[float, float, float, float]:
        """Place of the surface's origin (x, y), cosine and sine of its angle, times its scale."""
        swing = self.amplitudes * np.sin(self.frequencies * seconds + self.phases)
        x, y, angle, log_scale = (self.mean + swing.sum(axis=0)).tolist()
        scale = np.exp(log_scale)
        return (
            x + self.drift * seconds,
            y,
            float(scale * np.cos(angle)),
            float(scale * np.sin(angle)),
        )

    def to_image(self, x: Array, y: Array, seconds: float) -> tuple[Array, Array]:
        """Image coordinates of points given in the surface's own coordinates."""
        origin_x, origin_y, cos, sin = self.pose(seconds)
        return origin_x + cos * x - sin * y, origin_y + sin * x + cos * y

    def to_surface(self, x: Array, y: Array, seconds: float) -> tuple[Array, Array]:
        """The surface's own coordinates of points given in image coordinates."""
        origin_x, origin_y, cos, sin = self.pose(seconds)
        x, y = (x - origin_x) / (cos**2 + sin**2), (y - origin_y) / (cos**2 + sin**2)
        return cos * x + sin * y, cos * y - sin * x
