"""Dataloaders of depth crops for training, and of whole test images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import starmap

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from midway.data.depth.images import DepthData, DepthImage, is_known
from midway.data.sampling.ahead import Batch, read_ahead
from midway.data.sampling.stream import Stream, StreamLoader
from midway.data.workers.pool import Reading

Arrays = tuple[NDArray[np.uint8], NDArray[np.float32]]
"""RGB (..., height, width, 3) and depth (..., height, width) in metres."""


@dataclass(frozen=True, kw_only=True)
class DepthBatch(Batch):
    """Crops of one step; its length is the number of images."""

    images: Tensor
    """uint8 RGB of shape (B, 3, H, W)."""
    depth: Tensor
    """float32 in metres, shape (B, H, W), 0 where unknown or too large."""

    def __len__(self) -> int:
        return len(self.images)


class DepthLoader(StreamLoader):
    """Dataloader over an endless stream of images; see `Stream`.

    A crop depends on (seed, epoch, image) only.

    Raises:
        MidwayError: The batch size is not divisible among the processes.

    """

    def __init__(
        self,
        images: Sequence[DepthImage],
        data: DepthData,
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
        self._reader = DepthCropReader(images, data, seed)

    def batches(self, start_step: int, stop_step: int) -> Iterator[DepthBatch]:
        """Yield this process's share of the steps from `start_step` to before `stop_step`.

        Raises:
            MidwayError: A file cannot be read.

        """
        return read_ahead(
            self._reader,
            map(self._stream.keys, range(start_step, stop_step)),
            partial(starmap, _batch),
            num_workers=self._num_workers,
        )


@dataclass(frozen=True)
class DepthCropReader:
    """Reader of the crops of a step in a worker."""

    images: Sequence[DepthImage]
    data: DepthData
    seed: int

    def __call__(self, keys: Sequence[tuple[int, int]], reading: Reading) -> Arrays:
        """Return the crops of several (epoch, index).

        Raises:
            MidwayError: A file cannot be read.

        """
        height, width = self.data.crop
        images = np.zeros((len(keys), height, width, 3), np.uint8)
        depths = np.zeros((len(keys), height, width), np.float32)
        for place, key in enumerate(keys):
            image, depth = self._crop(*key, reading)
            # Images smaller than the crop are padded; their padding has no depth.
            images[place, : image.shape[0], : image.shape[1]] = image
            depths[place, : depth.shape[0], : depth.shape[1]] = depth
        return images, depths

    def _crop(self, epoch: int, index: int, reading: Reading) -> Arrays:
        reading.require(self.images[index].image)
        image, depth = self.images[index].read()
        rng = np.random.default_rng([self.seed, epoch, index])
        rows, columns = (
            int(rng.integers(max(0, side - crop) + 1))
            for side, crop in zip(depth.shape, self.data.crop, strict=True)
        )
        box = slice(rows, rows + self.data.crop[0]), slice(columns, columns + self.data.crop[1])
        image, depth = image[box], depth[box]
        if rng.random() < self.data.p_flip:
            image, depth = image[:, ::-1], depth[:, ::-1]
        return image, np.where(is_known(depth, self.data), depth, np.float32(0))


@dataclass(frozen=True)
class DepthReader:
    """Reader of whole images in a worker."""

    images: Sequence[DepthImage]

    def __call__(
        self, index: int, reading: Reading
    ) -> tuple[int, NDArray[np.uint8], NDArray[np.float32]]:
        """Return the index, the image (height, width, 3), and its depth (height, width).

        Raises:
            MidwayError: A file cannot be read.

        """
        reading.require(self.images[index].image)
        return index, *self.images[index].read()


def whole_depth(
    images: Sequence[DepthImage], data: DepthData, *, rank: int = 0, world_size: int = 1
) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.float32]]]:
    """Yield index, image and depth of every `world_size`-th image from `rank`.

    Raises:
        MidwayError: A file cannot be read.

    """
    return read_ahead(
        DepthReader(images),
        range(rank, len(images), world_size),
        iter,
        num_workers=data.num_workers,
    )


def _batch(images: NDArray[np.uint8], depth: NDArray[np.float32]) -> DepthBatch:
    return DepthBatch(
        images=torch.from_numpy(images).permute(0, 3, 1, 2), depth=torch.from_numpy(depth)
    )
