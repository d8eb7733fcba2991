"""Batches of flow pairs from a mixture of datasets, the same ones after any restart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from midway.data.flow_augment import FlowCrop, augment, fixed_crop
from midway.data.flow_sets import FlowPair, list_pairs, load_pair
from midway.data.item_loader import load_items
from midway.data.order import epoch_order
from midway.errors import MidwayError


@dataclass(frozen=True, kw_only=True)
class FlowPart:
    """One dataset of a mixture."""

    dataset: str
    split: str
    folder: str
    """Below the root of the mixture."""
    repeats: int = 1
    """How often a pair comes in one listing of the mixture."""


PAPER_MIXTURE = (
    FlowPart(dataset="sintel", split="subtrain", folder="Sintel", repeats=40),
    FlowPart(dataset="things", split="train", folder="FlyingThings3D", repeats=4),
    FlowPart(dataset="chairs", split="train", folder="FlyingChairs", repeats=4),
    FlowPart(dataset="tartanair", split="all", folder="TartanAir", repeats=1),
)
"""Of the main tables (CroCo v2's code): 793,052 pairs a listing, both renderings."""
ABLATION_MIXTURE = PAPER_MIXTURE[1:3]
"""Of tables 3 and 5, which say no more than "FlyingChairs and FlyingThings"."""


@dataclass(frozen=True, kw_only=True)
class FlowDataConfig:
    """What a flow network is trained on, and how it is batched."""

    root: Path
    """Folder of the datasets' folders."""
    parts: tuple[FlowPart, ...]
    crop: tuple[int, int] = (320, 384)
    """Height and width."""
    augment: bool = True
    """Distort the pairs; without, their middle is taken as it is."""
    batch_size: int = 8
    """Pairs of a step over all ranks."""
    pairs_per_epoch: int = 30_000
    """At most; an epoch of a smaller mixture is one listing of it."""
    num_workers: int = 4

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


@dataclass(frozen=True, kw_only=True)
class FlowBatch:
    """Crops of one step; its length is the number of pairs."""

    source: Tensor
    """uint8 (B, 3, H, W)."""
    target: Tensor
    flow: Tensor
    """float32 (B, 2, H, W) in pixels, not finite where it is not known."""

    def __len__(self) -> int:
        return len(self.source)

    def to(self, device: torch.device) -> Self:
        """The same on `device`; copies from page-locked memory do not wait."""
        return replace(
            self, **{name: part.to(device, non_blocking=True) for name, part in vars(self).items()}
        )

    def pin_memory(self) -> Self:
        """The same in page-locked memory."""
        return replace(self, **{name: part.pin_memory() for name, part in vars(self).items()})


class FlowLoader:
    """Batches of a mixture by step.

    Each epoch takes the first `pairs_per_epoch` of a new permutation of the listing; what a step
    gets is a pure function of the seed, its number and the batch size.

    Raises:
        MidwayError: A part is not found, or the batch cannot be shared by the processes.
    """

    def __init__(
        self, config: FlowDataConfig, *, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        if config.batch_size % world_size:
            raise MidwayError(
                f"data.batch_size = {config.batch_size} cannot be shared by {world_size} "
                "processes; give a multiple"
            )
        self.config = config
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._dataset = _Crops(config, seed)
        self._epoch_size = min(len(self._dataset), config.pairs_per_epoch)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one epoch, at least 1."""
        return max(1, self._epoch_size // self.config.batch_size)

    def keys(self, step: int) -> list[tuple[int, int]]:
        """The (epoch, index in the listing) of the pairs that this process reads for `step`."""
        first = step * self.config.batch_size
        positions = range(first + self._rank, first + self.config.batch_size, self._world_size)
        return [self._key(position) for position in positions]

    def batches(self, start_step: int, stop_step: int) -> Iterator[FlowBatch]:
        """This process's share of the steps from `start_step` to before `stop_step`.

        Raises:
            MidwayError: A file is missing or damaged.
        """
        return load_items(
            self._dataset,
            num_workers=self.config.num_workers,
            batch_sampler=(self.keys(step) for step in range(start_step, stop_step)),
            collate_fn=_collate,
        )

    def _key(self, position: int) -> tuple[int, int]:
        epoch, place = divmod(position, self._epoch_size)
        return epoch, int(epoch_order(self._seed, epoch, len(self._dataset))[place])


class _Crops(Dataset):
    """Crops by (epoch, index in the listing); errors are values, for a worker would wrap them."""

    def __init__(self, config: FlowDataConfig, seed: int) -> None:
        self._config, self._seed = config, seed
        self._pairs = [list_pairs(p.dataset, config.root / p.folder, p.split) for p in config.parts]
        counts = [
            len(pairs) * p.repeats for pairs, p in zip(self._pairs, config.parts, strict=True)
        ]
        self._ends = np.cumsum(counts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, key: tuple[int, int]) -> FlowCrop | MidwayError:
        try:
            example = load_pair(self._pair(key[1]))
            if not self._config.augment:
                return fixed_crop(example, self._config.crop)
            return augment(example, self._config.crop, np.random.default_rng([self._seed, *key]))
        except MidwayError as error:
            return error
        except OSError as error:
            return MidwayError(f"{error.filename}: {error.strerror}; fetch the dataset again")

    def _pair(self, index: int) -> FlowPair:
        part = int(np.searchsorted(self._ends, index, side="right"))
        first = int(self._ends[part - 1]) if part else 0
        return self._pairs[part][(index - first) % len(self._pairs[part])]


def _collate(crops: Sequence[FlowCrop | MidwayError]) -> FlowBatch | MidwayError:
    whole: list[FlowCrop] = []
    for crop in crops:
        if isinstance(crop, MidwayError):
            return crop
        whole.append(crop)
    return FlowBatch(
        source=torch.stack([crop.source for crop in whole]),
        target=torch.stack([crop.target for crop in whole]),
        flow=torch.stack([crop.flow for crop in whole]),
    )
