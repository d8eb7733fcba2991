"""Geometry between two frames: flow, occlusion, affine views of an image, and crops round points.

A point (x, y) is in pixels, right and down, and a pixel is a point at its centre. Maps of any
resolution are sampled at points of the image that they describe.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from midway.config import require

Points = Float[Tensor, "batch rows columns 2"]
Flow = Float[Tensor, "batch 2 height width"]
Size = tuple[int, int]
"""Height and width of an image in pixels."""

OCCLUSION_RATIO = 0.1
"""Tolerance of the forward-backward check, relative to the squared length of the flow."""
OCCLUSION_PIXELS = 0.5
"""Absolute tolerance of the check, in squared pixels."""
UNKNOWN = 1e4
"""Length that stands for unknown flow, in pixels: its points are far outside of any image."""


def pixels(size: Size, device: torch.device, *, every: int = 1) -> Float[Tensor, "rows columns 2"]:
    """Return the points at the centres of blocks of `every` x `every` pixels."""
    height, width = size
    middle = (every - 1) / 2
    x = torch.arange(width // every, device=device) * every + middle
    y = torch.arange(height // every, device=device) * every + middle
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def is_inside(points: Float[Tensor, "*shape 2"], size: Size) -> Bool[Tensor, "*shape"]:
    """Return whether points lie between the centres of the outermost pixels of an image."""
    x, y = points.unbind(-1)
    return (x >= 0) & (x <= size[1] - 1) & (y >= 0) & (y <= size[0] - 1)


def sample(
    maps: Float[Tensor, "batch channels height width"], points: Points, size: Size
) -> Float[Tensor, "batch channels rows columns"]:
    """Interpolate maps bilinearly at points of the image that they describe.

    Args:
        maps: Of any resolution; their outermost values continue to the border and beyond.
        points: In pixels of the image.
        size: Height and width of the image.

    """
    height, width = size
    x, y = points.unbind(-1)
    # grid_sample counts from -1 to 1, from the outer edge of the first pixel to that of the last.
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    return F.grid_sample(maps, grid, padding_mode="border", align_corners=False)


def follow(points: Points, flow: Flow, size: Size) -> Points:
    """Return the end points of the flow that begins at some points.

    Args:
        points: In pixels of the source.
        flow: In pixels, one vector per pixel of the source; finite.
        size: Height and width of the source.

    """
    return points + sample(flow, points, size).permute(0, 2, 3, 1)


def known(flow: Flow) -> Flow:
    """Replace unknown (not finite) vectors by long ones, which no check accepts."""
    return torch.where(flow.isfinite().all(1, keepdim=True), flow, UNKNOWN)


def is_visible(
    forward: Flow, backward: Flow, *, every: int = 1
) -> Bool[Tensor, "batch rows columns"]:
    """Return whether points of the source are also seen in the target (forward-backward check).

    A point p with flow f(p) is occluded if |f(p) + b(p + f(p))|^2 > 0.1 (|f(p)|^2 + |b(p +
    f(p))|^2) + 0.5, and not seen if it leaves the target.

    Args:
        forward: Flow f from source to target in pixels, finite.
        backward: Flow b from target to source in pixels, finite.
        every: Check the centres of blocks of this many pixels only.

    """
    size = (forward.shape[2], forward.shape[3])
    start = pixels(size, forward.device, every=every).expand(len(forward), -1, -1, -1)
    end = follow(start, forward, size)
    there = (end - start).square().sum(-1)  # (batch, rows, columns)
    back = sample(backward, end, size).permute(0, 2, 3, 1)
    missed = (end + back - start).square().sum(-1)
    tolerated = OCCLUSION_RATIO * (there + back.square().sum(-1)) + OCCLUSION_PIXELS
    return is_inside(end, size) & (missed <= tolerated)


@dataclass(frozen=True, kw_only=True)
class AffineRange:
    """Ranges of random rotation, scale and flip.

    Raises:
        MidwayError: A range is empty or out of bounds.

    """

    degrees: float = 10.0
    """Largest rotation in degrees, either way."""
    scale: tuple[float, float] = (0.9, 1.1)
    """Smallest and largest magnification."""
    p_flip: float = 0.5
    """Probability of a horizontal flip."""

    def __post_init__(self) -> None:
        rules = {
            f"degrees = {self.degrees}; give 0 to 180": 0 <= self.degrees <= 180,
            f"scale = {self.scale}; give 0 < low <= high": (
                0 < self.scale[0] <= self.scale[1] < math.inf
            ),
            f"p_flip = {self.p_flip}; give 0 to 1": 0 <= self.p_flip <= 1,
        }
        require("affine", rules)


@dataclass(frozen=True, eq=False)
class AffineView:
    """Images that are rotated and scaled about their centre, then flipped."""

    angle: Float[Tensor, " batch"]
    """Rotation in radians, from x to y."""
    scale: Float[Tensor, " batch"]
    """Magnification."""
    side: Float[Tensor, " batch"]
    """-1 where the image is flipped horizontally, else 1."""
    size: Size

    @classmethod
    def draw(cls, ranges: AffineRange, batch: int, size: Size, device: torch.device) -> Self:
        """Draw one view per image by torch's global generator."""
        angle, scale, flip = torch.rand(3, batch, device=device)
        low, high = ranges.scale
        return cls(
            math.radians(ranges.degrees) * (2 * angle - 1),
            low + (high - low) * scale,
            1 - 2 * (flip < ranges.p_flip).to(angle.dtype),
            size,
        )

    def turned(self, points: Points) -> Points:
        """Return where points of the image come to lie by rotation and scale, before the flip."""
        x, y = self._centred(points)
        cos, sin = self._turn(self.scale)
        return self._placed(cos * x - sin * y, sin * x + cos * y)

    def flipped(self, points: Points) -> Points:
        """Return where points come to lie by the flip."""
        x, y = self._centred(points)
        return self._placed(self.side[:, None, None] * x, y)

    def to_view(self, points: Points) -> Points:
        """Return where points of the image lie in the view."""
        return self.flipped(self.turned(points))

    def to_image(self, points: Points) -> Points:
        """Return the points of the image that points of the view show."""
        x, y = self._centred(self.flipped(points))
        cos, sin = self._turn(1 / self.scale)
        return self._placed(cos * x + sin * y, cos * y - sin * x)

    def render(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the views of the images, 0 beyond their border."""
        grid = pixels(self.size, images.device).expand(len(images), -1, -1, -1)
        points = self.to_image(grid)
        return sample(images, points, self.size) * is_inside(points, self.size)[:, None]

    def _turn(self, scale: Tensor) -> tuple[Tensor, Tensor]:
        scale, angle = scale[:, None, None], self.angle[:, None, None]
        return scale * angle.cos(), scale * angle.sin()

    def _centred(self, points: Points) -> tuple[Tensor, Tensor]:
        x, y = points.unbind(-1)
        return x - (self.size[1] - 1) / 2, y - (self.size[0] - 1) / 2

    def _placed(self, x: Tensor, y: Tensor) -> Points:
        return torch.stack([x + (self.size[1] - 1) / 2, y + (self.size[0] - 1) / 2], dim=-1)
