"""Batches of labelled crops by step, and test images one by one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from midway.data.colour import normalise
from midway.data.item_loader import load_items
from midway.data.order import epoch_order
from midway.data.segmentation import LabelledImages, SegmentationData
from midway.data.segmentation_layouts import IGNORE
from midway.data.segmentation_views import Crop, draw_crop, fitted_size
from midway.errors import MidwayError


@dataclass(frozen=True, kw_only=True)
class SegmentationBatch:
    """Crops of one step."""

    images: Tensor
    """uint8 of shape (B, 3, H, W), 0 right of and below images smaller than the crop."""
    labels: Tensor
    """uint8 of shape (B, H, W), `IGNORE` where there is no class."""
    sizes: Tensor
    """Height and width that each image fills, shape (B, 2)."""
    distortion: Tensor
    """Parameters of the photometric distortion, shape (B, 5)."""

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> Self:
        """The same on a device; copies from page-locked memory do not wait."""
        return replace(
            self, **{name: t.to(device, non_blocking=True) for name, t in vars(self).items()}
        )

    def pin_memory(self) -> Self:
        """The same in page-locked memory."""
        return replace(self, **{name: t.pin_memory() for name, t in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class WholeImage:
    """An image to be scored."""

    index: int
    image: Tensor
    """ImageNet-normalised, at the test scale, shape (3, height, width)."""
    labels: Tensor
    """uint8, at the size of the label file, shape (label height, label width)."""


class SegmentationLoader:
    """Batches of one endless stream of images, shuffled anew each pass.

    Position p of the stream is image p % N of the permutation of pass p // N; a step takes the
    next `batch_size` positions, and each process every `world_size`-th of them. A crop depends
    on (seed, pass, image) alone.

    Raises:
        MidwayError: The batch cannot be shared out evenly.

    """

    def __init__(
        self,
        images: LabelledImages,
        data: SegmentationData,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if data.batch_size % world_size:
            raise MidwayError(
                f"data.batch_size = {data.batch_size} cannot be shared by {world_size} processes; "
                "give a multiple of it"
            )
        self._images, self._data, self._seed = images, data, seed
        self._rank, self._world_size = rank, world_size

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass, at least one."""
        return max(1, len(self._images) // self._data.batch_size)

    def batches(self, start_step: int, stop_step: int) -> Iterator[SegmentationBatch]:
        """This process's share of the steps from `start_step` to before `stop_step`."""
        keys = (self._keys(step) for step in range(start_step, stop_step))
        crops = _Crops(self._images, self._data, self._seed)
        return load_items(
            crops,
            num_workers=self._data.num_workers,
            batch_sampler=keys,
            collate_fn=partial(_collate, self._data.crop),
        )

    def _keys(self, step: int) -> list[tuple[int, int]]:
        first, size = step * self._data.batch_size, len(self._images)
        positions = range(first + self._rank, first + self._data.batch_size, self._world_size)
        places = (divmod(position, size) for position in positions)
        return [
            (epoch, int(epoch_order(self._seed, epoch, size)[place])) for epoch, place in places
        ]


def whole_images(
    images: LabelledImages, data: SegmentationData, *, rank: int = 0, world_size: int = 1
) -> Iterator[WholeImage]:
    """Every `world_size`-th image of a split, read by `data.num_workers` processes."""
    indices = range(rank, len(images), world_size)
    return load_items(
        _Whole(images, data), num_workers=data.num_workers, sampler=indices, batch_size=None
    )


def read_whole_image(images: LabelledImages, data: SegmentationData, index: int) -> WholeImage:
    """One image at the test scale, with its labels as they are.

    Raises:
        MidwayError: A file that cannot be read or is of a wrong kind.

    """
    image, classes = images.read(index)
    if data.test_scale != "native":
        size = fitted_size(image.size, data.test_scale)
        image = image.resize(size, Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    return WholeImage(index=index, image=normalise(pixels), labels=torch.from_numpy(classes))


class _Whole(Dataset):
    """Test images; errors are values, as a loader would wrap one raised in a worker."""

    def __init__(self, images: LabelledImages, data: SegmentationData) -> None:
        self._images, self._data = images, data

    def __getitem__(self, index: int) -> WholeImage | MidwayError:
        try:
            return read_whole_image(self._images, self._data, index)
        except MidwayError as error:
            return error


class _Crops(Dataset):
    """Training crops by (pass, image); errors are values."""

    def __init__(self, images: LabelledImages, data: SegmentationData, seed: int) -> None:
        self._images, self._data, self._seed = images, data, seed

    def __getitem__(self, key: tuple[int, int]) -> Crop | MidwayError:
        try:
            image, classes = self._images.read(key[1])
        except MidwayError as error:
            return error
        return draw_crop(image, classes, self._data, np.random.default_rng([self._seed, *key]))


def _collate(
    size: tuple[int, int], items: Sequence[Crop | MidwayError]
) -> SegmentationBatch | MidwayError:
    crops: list[Crop] = []
    for item in items:
        if isinstance(item, MidwayError):
            return item
        crops.append(item)
    height, width = size
    images = np.zeros((len(crops), height, width, 3), np.uint8)
    labels = np.full((len(crops), height, width), IGNORE, np.uint8)
    for place, crop in enumerate(crops):
        rows, columns = crop.classes.shape
        images[place, :rows, :columns] = crop.image
        labels[place, :rows, :columns] = crop.classes
    return SegmentationBatch(
        images=torch.from_numpy(images).permute(0, 3, 1, 2),
        labels=torch.from_numpy(labels),
        sizes=torch.tensor([crop.classes.shape for crop in crops]),
        distortion=torch.tensor([crop.distortion for crop in crops]),
    )
