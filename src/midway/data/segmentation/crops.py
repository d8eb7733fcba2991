"""Training crops of labelled images: drawn and cut on the host, without torch.

The pipeline is that of mmsegmentation, which the paper's readouts use: a random scale, a crop that
no class fills, a flip, photometric distortion. Only the part of the image that ends up in the crop
is resampled; the distortion is applied on the device, by `segmentation.crops`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from midway.data.segmentation.classes import IGNORE
from midway.data.segmentation.images import LabelledImages, SegmentationData
from midway.data.workers.pool import Reading

MAX_REDRAWS = 10
BRIGHTNESS = 32 / 255
FACTORS = (0.5, 1.5)
"""Range of the factors of contrast and saturation."""
HUE_TURNS = 18 / 180
NEUTRAL = (0.0, 1.0, 1.0, 1.0, 0.0)
"""A distortion that changes nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Crop:
    """A training crop before its distortion."""

    image: NDArray[np.uint8]
    """Shape (height, width, 3); smaller than asked for if the image is."""
    classes: NDArray[np.uint8]
    """Shape (height, width)."""
    distortion: tuple[float, ...]
    """Brightness to add, contrast before and after, saturation factor, turn of the hue."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CropArrays:
    """Crops of one step, of one size: filled up on the right and below."""

    images: NDArray[np.uint8]
    """Shape (batch, height, width, 3)."""
    labels: NDArray[np.uint8]
    """Shape (batch, height, width)."""
    sizes: list[tuple[int, ...]]
    """Height and width that each image fills."""
    distortion: list[tuple[float, ...]]


@dataclass(frozen=True)
class CropReader:
    """Reads and cuts the crops of a step, in a worker; a crop depends on (seed, epoch, index)."""

    images: LabelledImages
    data: SegmentationData
    seed: int

    def __call__(self, keys: Sequence[tuple[int, int]], reading: Reading) -> CropArrays:
        """Return the crops of (epoch, index).

        Raises:
            MidwayError: A file that cannot be read or is of a wrong kind.

        """
        crops = [self._crop(*key, reading) for key in keys]
        images = np.zeros((len(crops), *self.data.crop, 3), np.uint8)
        labels = np.full((len(crops), *self.data.crop), IGNORE, np.uint8)
        for place, crop in enumerate(crops):
            rows, columns = crop.classes.shape
            images[place, :rows, :columns] = crop.image
            labels[place, :rows, :columns] = crop.classes
        return CropArrays(
            images=images,
            labels=labels,
            sizes=[crop.classes.shape for crop in crops],
            distortion=[crop.distortion for crop in crops],
        )

    def _crop(self, epoch: int, index: int, reading: Reading) -> Crop:
        reading.require(self.images[index].image)
        image, classes = self.images.read(index)
        rng = np.random.default_rng([self.seed, epoch, index])
        return draw_crop(image, classes, self.data, rng)


@dataclass(frozen=True)
class ImageReader:
    """Reads test images in a worker."""

    images: LabelledImages
    data: SegmentationData

    def __call__(
        self, index: int, reading: Reading
    ) -> tuple[int, NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the index, the image (height, width, 3) at the test scale, and its classes.

        Raises:
            MidwayError: A file that cannot be read or is of a wrong kind.

        """
        reading.require(self.images[index].image)
        return index, *read_scaled(self.images, self.data, index)


def read_scaled(
    images: LabelledImages, data: SegmentationData, index: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return an image (height, width, 3) at the test scale, and its classes as they are.

    Raises:
        MidwayError: A file that cannot be read or is of a wrong kind.

    """
    image, classes = images.read(index)
    if data.test_scale != "native":
        size = fitted_size(image.size, data.test_scale)
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.array(image), classes


def fitted_size(size: tuple[int, int], scale: tuple[float, float]) -> tuple[int, int]:
    """Width and height of an image made to fit in a longest and a shortest side.

    Example:
        >>> fitted_size((1280, 720), (2048, 1024))
        (1820, 1024)

    """
    longest, shortest = max(scale), min(scale)
    factor = min(longest / max(size), shortest / min(size))
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))


def draw_crop(
    image: Image.Image,
    classes: NDArray[np.uint8],
    data: SegmentationData,
    rng: np.random.Generator,
) -> Crop:
    """A random training crop of a labelled image.

    Args:
        image: RGB.
        classes: Shape (height, width).
        data: Scale, ratio, crop, flip and distortion.
        rng: The only source of randomness.

    """
    ratio = rng.uniform(*data.ratio)
    size = fitted_size(image.size, (data.scale[0] * ratio, data.scale[1] * ratio))
    labels = Image.fromarray(classes)
    window = _draw_window(size, data.crop, rng)
    cut = np.asarray(resampled(labels, size, window, Image.Resampling.NEAREST))
    for _ in range(MAX_REDRAWS):
        if _is_mixed(cut, data.max_class_share):
            break
        window = _draw_window(size, data.crop, rng)
        cut = np.asarray(resampled(labels, size, window, Image.Resampling.NEAREST))
    pixels = np.asarray(resampled(image, size, window, Image.Resampling.BILINEAR))
    if rng.random() < data.p_flip:
        pixels, cut = pixels[:, ::-1], cut[:, ::-1]
    distortion = draw_distortion(rng) if data.distort else NEUTRAL
    return Crop(image=pixels, classes=cut, distortion=distortion)


def resampled(
    picture: Image.Image,
    size: tuple[int, int],
    window: tuple[int, int, int, int],
    method: Image.Resampling,
) -> Image.Image:
    """A window of a picture that is resized as a whole: resize then crop, at the cost of the crop.

    Args:
        picture: Image or labels.
        size: Width and height that the whole is resized to.
        window: Left, top, right and bottom in the resized picture.
        method: Bilinear (which averages when it shrinks) or nearest.

    """
    left, top, right, bottom = window
    x, y = picture.width / size[0], picture.height / size[1]
    box = (left * x, top * y, min(right * x, picture.width), min(bottom * y, picture.height))
    return picture.resize((right - left, bottom - top), method, box)


def draw_distortion(rng: np.random.Generator) -> tuple[float, ...]:
    """Parameters of a photometric distortion, each of its four parts with probability a half."""
    takes = rng.random(4) < 0.5
    brightness = rng.uniform(-BRIGHTNESS, BRIGHTNESS)
    contrast, saturation = rng.uniform(*FACTORS, 2)
    turn = rng.uniform(-HUE_TURNS, HUE_TURNS)
    contrast_first = rng.random() < 0.5
    return (
        brightness if takes[0] else 0.0,
        contrast if takes[1] and contrast_first else 1.0,
        contrast if takes[1] and not contrast_first else 1.0,
        saturation if takes[2] else 1.0,
        turn if takes[3] else 0.0,
    )


def _draw_window(
    size: tuple[int, int], crop: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    height, width = min(crop[0], size[1]), min(crop[1], size[0])
    top = int(rng.integers(size[1] - height + 1))
    left = int(rng.integers(size[0] - width + 1))
    return left, top, left + width, top + height


def _is_mixed(classes: NDArray[np.uint8], max_share: float) -> bool:
    """Whether there are two classes at least and none has too large a share of the labels."""
    counts = np.bincount(classes.ravel(), minlength=IGNORE + 1)[:IGNORE]
    return bool(np.count_nonzero(counts) > 1 and counts.max() < max_share * counts.sum())
