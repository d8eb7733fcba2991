"""Batches of pairs by step, the same ones whatever the workers, processes and restarts."""

import gc
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from midway.data.pairs import PairDataset, PairSample
from midway.data.skipped import SkipLog, SkippedClip
from midway.errors import MidwayError

SampleViewsT = TypeVar("SampleViewsT")
BatchViewsT = TypeVar("BatchViewsT")


@dataclass(frozen=True, kw_only=True)
class PairBatch(Generic[BatchViewsT]):
    """Pairs of one step; its length is the number of pairs."""

    source: Tensor
    """Frames, uint8 (B, 3, H, W), zero below and right of smaller ones; channels last in memory."""
    target: Tensor
    """Later frames, likewise."""
    views: BatchViewsT
    """What the caller's `stack_views` made of the views of the pairs; stays where it is."""
    clips: tuple[str, ...]
    source_seconds: tuple[float, ...]
    target_seconds: tuple[float, ...]
    indices: tuple[int, ...]
    """Places in the epoch that were asked for."""
    skipped: tuple[SkippedClip, ...]
    """Clips that could not be read on the way to this batch."""

    def __len__(self) -> int:
        return len(self.clips)

    def to(self, device: torch.device) -> Self:
        """The same with the frames on `device`; copies from page-locked memory do not wait."""
        return replace(
            self,
            source=self.source.to(device, non_blocking=True),
            target=self.target.to(device, non_blocking=True),
        )

    def pin_memory(self) -> Self:
        """The same with the frames in page-locked memory."""
        return replace(
            self,
            source=self.source.pin_memory(),
            target=self.target.pin_memory(),
        )


class PairLoader(Generic[SampleViewsT, BatchViewsT]):
    """Batches of one endless stream of items, shuffled anew each pass.

    Position p of the stream is item p % N of the permutation of pass p // N, for the N items of
    the dataset. A step takes the next ``batch_size / draws_per_clip`` positions, and each
    process every ``world_size``-th of them. So a step is a pure function of the seed, its
    number and the batch size, and to resume is to start at a later step.

    Args:
        dataset: The pairs; its config says how they are batched.
        stack_views: Makes the views of a batch of those of its samples.
        rank: Number of this process.
        world_size: Number of processes.
        folder: Where `skipped.jsonl` is kept, usually that of the run; None keeps none.

    Raises:
        MidwayError: The batch cannot be shared out evenly, or too many clips are bad.
    """

    def __init__(
        self,
        dataset: PairDataset[SampleViewsT],
        *,
        stack_views: Callable[[Sequence[SampleViewsT]], BatchViewsT],
        rank: int = 0,
        world_size: int = 1,
        folder: Path | None = None,
    ) -> None:
        config = dataset.config
        self._items_per_step = config.batch_size // config.draws_per_clip
        if self._items_per_step % world_size:
            raise MidwayError(
                f"data.batch_size = {config.batch_size}: {self._items_per_step} clips of "
                f"{config.draws_per_clip} pairs cannot be shared by {world_size} processes; give "
                f"a multiple of {config.draws_per_clip * world_size}"
            )
        self.dataset = dataset
        self._stack_views = stack_views
        self._rank, self._world_size = rank, world_size
        total, share = dataset.found.total, config.max_bad_share
        self._skips = SkipLog(total=total, max_share=share, folder=folder)
        self._skips.add(dataset.found.skipped, write=rank == 0)

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see as many pairs as the dataset has items; a pass of R draws is R epochs."""
        return max(1, len(self.dataset) // self.dataset.config.batch_size)

    def keys(self, step: int) -> list[tuple[int, int]]:
        """The (epoch, index) of the items that this process reads for `step`."""
        first = step * self._items_per_step
        positions = range(first + self._rank, first + self._items_per_step, self._world_size)
        return [self._key(position) for position in positions]

    def batches(self, start_step: int, stop_step: int) -> Iterator[PairBatch[BatchViewsT]]:
        """This process's share of the steps from `start_step` to before `stop_step`.

        Raises:
            MidwayError: Too many clips turned out bad.
        """
        # A worker must not inherit garbage: to free a decoder there is to wait for its threads,
        # which were not forked with it.
        gc.collect()
        loader = DataLoader(
            _ErrorsAsItems(self.dataset),
            batch_sampler=(self.keys(step) for step in range(start_step, stop_step)),
            num_workers=self.dataset.config.num_workers,
            collate_fn=partial(_collate, self._stack_views),
            worker_init_fn=_start_worker,
            pin_memory=torch.cuda.is_available(),
            # Without its own, the loader takes a number from the global generator, and a resumed
            # run would go on with others than one that was never stopped.
            generator=torch.Generator(),
        )
        for batch in loader:
            if isinstance(batch, MidwayError):
                raise batch
            self._skips.add(batch.skipped, write=True)
            yield batch

    def _key(self, position: int) -> tuple[int, int]:
        epoch, place = divmod(position, len(self.dataset))
        return epoch, int(_order(self.dataset.seed, epoch, len(self.dataset))[place])


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(size)


class _ErrorsAsItems(Dataset):
    """Hands errors over as values: a loader would wrap one raised in a worker in its traceback."""

    def __init__(self, dataset: PairDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> list[PairSample] | MidwayError:
        try:
            return self._dataset[key]
        except MidwayError as error:
            return error


def _collate(
    stack_views: Callable[[Sequence[SampleViewsT]], BatchViewsT],
    items: list[list[PairSample[SampleViewsT]] | MidwayError],
) -> PairBatch[BatchViewsT] | MidwayError:
    samples: list[PairSample[SampleViewsT]] = []
    for item in items:
        if isinstance(item, MidwayError):
            return item
        samples += item
    return PairBatch(
        source=_padded([sample.source for sample in samples]),
        target=_padded([sample.target for sample in samples]),
        views=stack_views([sample.views for sample in samples]),
        clips=tuple(sample.clip for sample in samples),
        source_seconds=tuple(sample.source_seconds for sample in samples),
        target_seconds=tuple(sample.target_seconds for sample in samples),
        indices=tuple(sample.index for sample in samples),
        skipped=tuple({skip for sample in samples for skip in sample.skipped}),
    )


def _padded(images: list[Tensor]) -> Tensor:
    height = max(image.shape[1] for image in images)
    width = max(image.shape[2] for image in images)
    # Frames come from the decoder with their channels last, and are copied fastest that way.
    batch = torch.zeros(len(images), height, width, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    for place, image in zip(batch, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return batch


def _start_worker(worker: int) -> None:
    torch.set_num_threads(1)
    # A signal to the whole group is for the training process to answer: it still needs batches to
    # end its step, and tells the workers when they are done.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
