"""Training crops and test images of labelled datasets, read and cut on the host without torch.

The pipeline is that of mmsegmentation, as in the paper: random scale, a crop that no class
dominates, flip and photometric distortion. Only the part of the image inside the crop is resampled.
`segmentation.views` applies the distortion on the device.
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
"""Maximum redraws of a crop that one class dominates."""
BRIGHTNESS = 32 / 255
"""Maximum change of brightness, for images in [0, 1]."""
FACTORS = (0.5, 1.5)
"""Range of the factors of contrast and saturation."""
HUE_TURNS = 18 / 180
"""Maximum change of the hue in turns."""
NEUTRAL = (0.0, 1.0, 1.0, 1.0, 0.0)
"""Distortion parameters that leave an image unchanged."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Crop:
    """Training crop before its distortion."""

    image: NDArray[np.uint8]
    """RGB, shape (height, width, 3); smaller than the requested crop if the image is smaller."""
    classes: NDArray[np.uint8]
    """Class ids or `IGNORE`, shape (height, width)."""
    distortion: tuple[float, ...]
    """Brightness offset, contrast factors before and after the HSV step, saturation factor, and hue
    shift in turns."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CropArrays:
    """Crops of one step, padded on the right and below to one size."""

    images: NDArray[np.uint8]
    """RGB, shape (batch, height, width, 3), 0 in the padding."""
    labels: NDArray[np.uint8]
    """Class ids, shape (batch, height, width), `IGNORE` in the padding."""
    sizes: list[tuple[int, ...]]
    """Height and width of each image without its padding."""
    distortion: list[tuple[float, ...]]
    """Distortion parameters of each crop, as in `Crop`."""


@dataclass(frozen=True)
class CropReader:
    """Reader of the crops of a step in a worker; a crop depends on (seed, epoch, index) only."""

    images: LabelledImages
    data: SegmentationData
    seed: int

    def __call__(self, keys: Sequence[tuple[int, int]], reading: Reading) -> CropArrays:
        """Return the crops of several (epoch, index).

        Raises:
            MidwayError: A file cannot be read or is of the wrong type.

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
    """Reader of test images in a worker."""

    images: LabelledImages
    data: SegmentationData

    def __call__(
        self, index: int, reading: Reading
    ) -> tuple[int, NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the index, the image (height, width, 3) at the test scale, and its class ids.

        Raises:
            MidwayError: A file cannot be read or is of the wrong type.

        """
        reading.require(self.images[index].image)
        return index, *read_scaled(self.images, self.data, index)


def read_scaled(
    images: LabelledImages, data: SegmentationData, index: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return an image (height, width, 3) at the test scale, and its class ids at full size.

    Raises:
        MidwayError: A file cannot be read or is of the wrong type.

    """
    image, classes = images.read(index)
    return at_test_scale(image, data), classes


def at_test_scale(image: Image.Image, data: SegmentationData) -> NDArray[np.uint8]:
    """Return an RGB image as an array (height, width, 3) at the test scale."""
    if data.test_scale != "native":
        size = fitted_size(image.size, data.test_scale)
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.array(image)


def fitted_size(size: tuple[int, int], scale: tuple[float, float]) -> tuple[int, int]:
    """Return width and height of an image resized to fit a longest and a shortest side.

    Examples:
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
    """Draw a random training crop of a labelled image.

    Args:
        image: RGB image.
        classes: Class ids or `IGNORE`, shape (height, width).
        data: Options of scale, ratio, crop, flip and distortion.
        rng: Source of all random numbers.

    """
    ratio = rng.uniform(*data.ratio)
    scale = image.size if data.scale == "native" else data.scale
    size = fitted_size(image.size, (scale[0] * ratio, scale[1] * ratio))
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
    """Return a window of a resized picture, at the cost of the window only.

    Args:
        picture: Image or labels.
        size: Width and height of the whole resized picture.
        window: Left, top, right and bottom in the resized picture.
        method: Bilinear (antialiased when shrinking) or nearest.

    """
    left, top, right, bottom = window
    x, y = picture.width / size[0], picture.height / size[1]
    box = (left * x, top * y, min(right * x, picture.width), min(bottom * y, picture.height))
    return picture.resize((right - left, bottom - top), method, box)


def draw_distortion(rng: np.random.Generator) -> tuple[float, ...]:
    """Draw the parameters of a distortion; each of its four parts applies with probability 0.5."""
    is_on = rng.random(4) < 0.5
    brightness = rng.uniform(-BRIGHTNESS, BRIGHTNESS)
    contrast, saturation = rng.uniform(*FACTORS, 2)
    turn = rng.uniform(-HUE_TURNS, HUE_TURNS)
    contrast_first = rng.random() < 0.5
    return (
        brightness if is_on[0] else 0.0,
        contrast if is_on[1] and contrast_first else 1.0,
        contrast if is_on[1] and not contrast_first else 1.0,
        saturation if is_on[2] else 1.0,
        turn if is_on[3] else 0.0,
    )


def _draw_window(
    size: tuple[int, int], crop: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    height, width = min(crop[0], size[1]), min(crop[1], size[0])
    top = int(rng.integers(size[1] - height + 1))
    left = int(rng.integers(size[0] - width + 1))
    return left, top, left + width, top + height


def _is_mixed(classes: NDArray[np.uint8], max_share: float) -> bool:
    """Return whether there are two or more classes, each below `max_share` of the labels."""
    counts = np.bincount(classes.ravel(), minlength=IGNORE + 1)[:IGNORE]
    return bool(np.count_nonzero(counts) > 1 and counts.max() < max_share * counts.sum())
