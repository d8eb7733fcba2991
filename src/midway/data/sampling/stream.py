"""Endless, deterministic stream of a dataset's items, which each process computes by itself."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from midway.errors import MidwayError


@lru_cache(maxsize=2)  # a step may begin in one epoch and end in the next
def epoch_order(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    """Return the permutation of `range(size)` in an epoch; it is cached and must not be modified.

    Examples:
        >>> sorted(epoch_order(0, 1, 4).tolist())
        [0, 1, 2, 3]

    """
    return np.random.default_rng([seed, epoch]).permutation(size)


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Endless stream of items, reshuffled in each epoch, and its division into steps.

    Position p of the stream is entry p % E of the permutation of epoch p // E, for E items in an
    epoch. A step takes the next ``batch_size / samples_per_item`` positions, and each process every
    ``world_size``-th of them. So the items of a step are a pure function of seed, step and batch
    size, and a run resumes by starting at a later step.

    Raises:
        MidwayError: The batch size is not divisible among the processes.

    Examples:
        >>> Stream(size=4, batch_size=4, seed=0).keys(1)
        [(1, 3), (1, 0), (1, 2), (1, 1)]

    """

    size: int
    """Number of items of the dataset, at least 1."""
    batch_size: int
    """Samples per step over all processes."""
    seed: int
    rank: int = 0
    world_size: int = 1
    samples_per_item: int = 1
    max_epoch_size: int | None = None
    """Maximum items of an epoch; None for no limit."""

    def __post_init__(self) -> None:
        smallest = self.samples_per_item * self.world_size
        if self.batch_size % smallest:
            problem = f"data.batch_size = {self.batch_size}"
            if self.samples_per_item > 1:
                clips = self.batch_size // self.samples_per_item
                problem += f": {clips} clips of {self.samples_per_item} samples"
            raise MidwayError(
                f"{problem} cannot be shared by {self.world_size} processes; give a multiple of "
                f"{smallest}"
            )

    @property
    def epoch_size(self) -> int:
        """Number of items of one epoch."""
        return min(self.size, self.max_epoch_size or self.size)

    @property
    def steps_per_epoch(self) -> int:
        """Steps that yield as many samples as an epoch has items, at least 1."""
        return max(1, self.epoch_size // self.batch_size)

    @property
    def epochs_per_step(self) -> float:
        """Samples of a step as a fraction of the items of an epoch."""
        return self.batch_size / self.epoch_size

    @property
    def items_per_process(self) -> int:
        """Number of items that each process reads for a step."""
        return self.batch_size // self.samples_per_item // self.world_size

    def keys(self, step: int) -> list[tuple[int, int]]:
        """Return the (epoch, index) of the items that this process reads for `step`."""
        items = self.items_per_process * self.world_size
        first = step * items
        return [
            self._key(position)
            for position in range(first + self.rank, first + items, self.world_size)
        ]

    def _key(self, position: int) -> tuple[int, int]:
        epoch, place = divmod(position, self.epoch_size)
        return epoch, int(epoch_order(self.seed, epoch, self.size)[place])


class StreamLoader:
    """Dataloader over a stream, whose lengths the training loop reads from it."""

    _stream: Stream

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch, at least one."""
        return self._stream.steps_per_epoch

    @property
    def samples_per_step(self) -> int:
        """Samples of a step over all processes."""
        return self._stream.batch_size

    @property
    def epochs_per_step(self) -> float:
        """Samples of a step as a fraction of an epoch."""
        return self._stream.epochs_per_step

    def keys(self, step: int) -> list[tuple[int, int]]:
        """Return the (epoch, index) of the items that this process reads for `step`."""
        return self._stream.keys(step)
