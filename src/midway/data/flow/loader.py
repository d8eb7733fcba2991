"""Dataloader of flow pairs from a mixture of datasets, deterministic across restarts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import starmap
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from midway.config import MAX_BATCH, MAX_WORKERS, check_at_most
from midway.data.flow.augment import FlowCrop, augment, fixed_crop
from midway.data.flow.datasets import list_pairs
from midway.data.flow.pairs import FlowPair, load_pair, read_pair_flow
from midway.data.sampling.ahead import Batch, read_ahead
from midway.data.sampling.stream import Stream, StreamLoader
from midway.data.workers.pool import Reading
from midway.errors import MidwayError, counted
from midway.nn.losses.laplacian import is_valid


@dataclass(frozen=True, kw_only=True)
class FlowPart:
    """One dataset of a mixture."""

    dataset: str
    """Key of `FLOW_SETS`."""
    split: str
    folder: str
    """Folder below the root of the mixture."""
    repeats: int = 1
    """Occurrences of each pair in the mixture."""


PAPER_MIXTURE = (
    FlowPart(dataset="sintel", split="subtrain", folder="Sintel", repeats=40),
    FlowPart(dataset="things", split="train", folder="FlyingThings3D", repeats=4),
    FlowPart(dataset="chairs", split="train", folder="FlyingChairs", repeats=4),
    FlowPart(dataset="tartanair", split="all", folder="TartanAir", repeats=1),
)
"""Mixture of the main tables (code of CroCo v2): 793,052 pairs with repeats, both renderings."""
ABLATION_MIXTURE = PAPER_MIXTURE[1:3]
"""Mixture of tables 3 and 5; the paper specifies only "FlyingChairs and FlyingThings"."""


@dataclass(frozen=True, kw_only=True)
class FlowDataConfig:
    """Options of the training data of a flow network."""

    root: Path
    """Folder that contains the folders of the datasets."""
    parts: tuple[FlowPart, ...]
    """Datasets of the mixture."""
    crop: tuple[int, int] = (320, 384)
    """Height and width of crops in pixels."""
    augment: bool = True
    """If True, augment the pairs; else take central crops."""
    batch_size: int = 8
    """Pairs per step over all processes."""
    pairs_per_epoch: int = 30_000
    """Maximum pairs of an epoch; a smaller mixture is one epoch."""
    num_workers: int = 4
    """Worker processes per training process."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise MidwayError("data.parts: no dataset; give one part or more")
        counts = {name: getattr(self, name) for name in ("batch_size", "pairs_per_epoch")}
        counts |= {"crop": min(self.crop), "repeats": min(part.repeats for part in self.parts)}
        for name, value in counts.items():
            if value < 1:
                raise MidwayError(f"data.{name} = {value}; give 1 or more")
        if self.num_workers < 0:
            raise MidwayError(f"data.num_workers = {self.num_workers}; give 0 or more")
        check_at_most("data", self, num_workers=MAX_WORKERS, batch_size=MAX_BATCH)


@dataclass(frozen=True, kw_only=True)
class FlowBatch(Batch):
    """Crops of one step; its length is the number of pairs."""

    source: Tensor
    """uint8 RGB (B, 3, H, W)."""
    target: Tensor
    """uint8 RGB (B, 3, H, W)."""
    flow: Tensor
    """float32 (B, 2, H, W) in pixels, not finite where unknown."""

    def __len__(self) -> int:
        return len(self.source)


class FlowLoader(StreamLoader):
    """Dataloader over a mixture; see `Stream`.

    An epoch is the first `pairs_per_epoch` of a new permutation of the mixture.

    Raises:
        MidwayError: A dataset is missing, or the batch size is not divisible among the processes.
    """

    def __init__(
        self, config: FlowDataConfig, *, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.config = config
        self._pairs = [list_pairs(p.dataset, config.root / p.folder, p.split) for p in config.parts]
        repeats = [part.repeats for part in config.parts]
        self._ends = np.cumsum(np.multiply([len(pairs) for pairs in self._pairs], repeats))
        self._stream = Stream(
            size=int(self._ends[-1]),
            batch_size=config.batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            max_epoch_size=config.pairs_per_epoch,
        )

    def require_known(self) -> None:
        """Check that each dataset has a known flow vector; reading stops at the first one.

        Raises:
            MidwayError: No vector of a dataset is known, or a file is missing or damaged.
        """
        for part, pairs in zip(self.config.parts, self._pairs, strict=True):
            if not any(_has_known(pair) for pair in pairs):
                others = counted(len(pairs) - 1, "other pair")
                raise MidwayError(
                    f"{pairs[0].flow}: no vector of it or of {others} of {part.dataset} is known, "
                    "so there is nothing to learn; fetch the flow again"
                )

    def batches(self, start_step: int, stop_step: int) -> Iterator[FlowBatch]:
        """Yield this process's share of the steps from `start_step` to before `stop_step`.

        Raises:
            MidwayError: A file is missing or damaged.
        """
        # Tasks contain their pairs, because the paper's mixture has 400,000, too many to copy to
        # each worker.
        tasks = (
            [(epoch, index, self._pair(index)) for epoch, index in self.keys(step)]
            for step in range(start_step, stop_step)
        )
        return read_ahead(
            FlowCropReader(self.config.crop, self.config.augment, self._stream.seed),
            tasks,
            partial(starmap, _batch),
            num_workers=self.config.num_workers,
        )

    def _pair(self, index: int) -> FlowPair:
        part = int(np.searchsorted(self._ends, index, side="right"))
        first = int(self._ends[part - 1]) if part else 0
        return self._pairs[part][(index - first) % len(self._pairs[part])]


@dataclass(frozen=True)
class FlowCropReader:
    """Reader of the crops of a step in a worker; a crop depends on (seed, epoch, index) only.

    Args:
        crop: Height and width of crops in pixels.
        augment: If True, augment the pairs; else take central crops.
        seed: Seed of the augmentation.
    """

    crop: tuple[int, int]
    augment: bool
    seed: int

    def __call__(
        self, tasks: Sequence[tuple[int, int, FlowPair]], reading: Reading
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
        """Return source, target (B, 3, H, W) and flow (B, 2, H, W) of (epoch, index, pair).

        Raises:
            MidwayError: A file is missing or damaged.
        """
        crops = [self._crop(*task, reading) for task in tasks]
        # The workers' shared memory transfers NumPy arrays, but not torch tensors.
        return (
            torch.stack([crop.source for crop in crops]).numpy(),
            torch.stack([crop.target for crop in crops]).numpy(),
            torch.stack([crop.flow for crop in crops]).numpy(),
        )

    def _crop(self, epoch: int, index: int, pair: FlowPair, reading: Reading) -> FlowCrop:
        reading.require(pair.flow)
        try:
            example = load_pair(pair)
        except OSError as error:
            raise MidwayError(
                f"{error.filename}: {error.strerror}; fetch the dataset again"
            ) from None
        if not self.augment:
            return fixed_crop(example, self.crop)
        return augment(example, self.crop, np.random.default_rng([self.seed, epoch, index]))


def _has_known(pair: FlowPair) -> bool:
    try:
        flow = torch.from_numpy(read_pair_flow(pair)).permute(2, 0, 1)
    except OSError as error:
        raise MidwayError(f"{error.filename}: {error.strerror}; fetch the dataset again") from None
    return bool(is_valid(flow[None]).any())


def _batch(
    source: NDArray[np.uint8], target: NDArray[np.uint8], flow: NDArray[np.float32]
) -> FlowBatch:
    return FlowBatch(
        source=torch.from_numpy(source),
        target=torch.from_numpy(target),
        flow=torch.from_numpy(flow),
    )
