"""Dataloaders of labelled crops for training, and of whole test images."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import starmap

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from midway.data.sampling.ahead import Batch, read_ahead
from midway.data.sampling.stream import Stream, StreamLoader
from midway.data.segmentation.crops import CropArrays, CropReader, ImageReader, read_scaled
from midway.data.segmentation.images import LabelledImages, SegmentationData
from midway.nn.images import normalise


@dataclass(frozen=True, kw_only=True)
class SegmentationBatch(Batch):
    """Crops of one step; its length is the number of images."""

    images: Tensor
    """uint8 of shape (B, 3, H, W), 0 in the padding of images smaller than the crop."""
    labels: Tensor
    """uint8 class ids of shape (B, H, W), or `IGNORE`."""
    sizes: Tensor
    """Height and width of each image without its padding, shape (B, 2)."""
    distortion: Tensor
    """Parameters of the photometric distortion as in `Crop`, shape (B, 5)."""

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, kw_only=True)
class WholeImage:
    """Test image with its labels."""

    index: int
    """Position in the split."""
    image: Tensor
    """ImageNet-normalised float32 at the test scale, shape (3, height, width)."""
    labels: Tensor
    """uint8 at the size of the label file, shape (label height, label width)."""


class SegmentationLoader(StreamLoader):
    """Dataloader over an endless stream of images; see `Stream`.

    A crop depends on (seed, epoch, image) only.

    Raises:
        MidwayError: The batch size is not divisible among the processes.

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
        self._stream = Stream(
            size=len(images),
            batch_size=data.batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        self._num_workers = data.num_workers
        self._reader = CropReader(images, data, seed)

    def batches(self, start_step: int, stop_step: int) -> Iterator[SegmentationBatch]:
        """Yield this process's share of the steps from `start_step` to before `stop_step`.

        Raises:
            MidwayError: A file cannot be read or is of the wrong type.

        """
        return read_ahead(
            self._reader,
            map(self._stream.keys, range(start_step, stop_step)),
            partial(map, _batch),
            num_workers=self._num_workers,
        )


def whole_images(
    images: LabelledImages, data: SegmentationData, *, rank: int = 0, world_size: int = 1
) -> Iterator[WholeImage]:
    """Yield this rank's share of a split: every `world_size`-th image from `rank`.

    Raises:
        MidwayError: A file cannot be read or is of the wrong type.

    """
    return read_ahead(
        ImageReader(images, data),
        range(rank, len(images), world_size),
        partial(starmap, _whole),
        num_workers=data.num_workers,
    )


def read_whole_image(images: LabelledImages, data: SegmentationData, index: int) -> WholeImage:
    """Return one image at the test scale, with its labels at full size.

    Raises:
        MidwayError: A file cannot be read or is of the wrong type.

    """
    return _whole(index, *read_scaled(images, data, index))


def as_input(image: NDArray[np.uint8]) -> Tensor:
    """Return an RGB image (height, width, 3) ImageNet-normalised, shape (3, height, width)."""
    return normalise(torch.from_numpy(image).permute(2, 0, 1) / 255)


def _whole(index: int, image: NDArray[np.uint8], classes: NDArray[np.uint8]) -> WholeImage:
    return WholeImage(index=index, image=as_input(image), labels=torch.from_numpy(classes))


def _batch(crops: CropArrays) -> SegmentationBatch:
    return SegmentationBatch(
        images=torch.from_numpy(crops.images).permute(0, 3, 1, 2),
        labels=torch.from_numpy(crops.labels),
        sizes=torch.tensor(crops.sizes),
        distortion=torch.tensor(crops.distortion),
    )
