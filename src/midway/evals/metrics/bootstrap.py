"""Bootstrap of ratio scores over blocks of test data and over seeds.

A score such as mIoU is the mean over columns (classes) of the ratio of two sums over blocks; a mean
has one column. A block is drawn as a whole, such as a scene or neighbouring frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
PERCENTILES = (2.5, 97.5)
"""Ends of the intervals, in percent."""

Row = tuple[list[float], list[float]]
"""Numerators and denominators of the columns of a block."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Mean over seeds, and its 95 % interval over blocks and seeds."""

    mean: float
    low: float
    high: float
    num_seeds: int

    def touches(self, other: "Estimate") -> bool:
        """Return whether two intervals have a point in common."""
        return self.low <= other.high and other.low <= self.high


def ratio_score(rows: Sequence[Row]) -> float:
    """Return the score of blocks; NaN if nothing was counted."""
    return float(draws([rows])[0]) if any(any(below) for _, below in rows) else np.nan


def draws(seeds: Sequence[Sequence[Row]]) -> NDArray[np.float64]:
    """Return the mean score over seeds: as measured, then for each bootstrap draw.

    Blocks and seeds are drawn with replacement. All calls with the same number of blocks draw the
    same ones, so that differences of two results are paired.

    Args:
        seeds: Rows of each seed, with the same blocks.

    Returns:
        Shape (1 + DRAWS,).

    """
    # (seeds, blocks, columns) each
    above, below = (
        np.array([[row[side] for row in rows] for rows in seeds], np.float64) for side in (0, 1)
    )
    num_seeds, num_blocks = above.shape[:2]
    blocks = _counts(num_blocks, stream=0)
    # Sums over the drawn blocks, of shape (draws, seeds, columns)
    above, below = (np.einsum("rb,sbc->rsc", blocks, each) for each in (above, below))
    # Columns that a draw does not contain, such as a class, do not count.
    ratios = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    scores = ratios.sum(2) / np.maximum(1, (below > 0).sum(2))  # (draws, seeds)
    return (scores * _counts(num_seeds, stream=1)).sum(1) / num_seeds


def estimate(seeds: Sequence[Sequence[Row]]) -> Estimate:
    """Return mean and interval of the score of several seeds."""
    return _summary(draws(seeds), len(seeds))


def difference(ours: Sequence[Sequence[Row]], others: Sequence[Sequence[Row]]) -> Estimate:
    """Return mean and interval of the difference of two scores, paired by block."""
    return _summary(draws(ours) - draws(others), min(len(ours), len(others)))


def _summary(found: NDArray[np.float64], num_seeds: int) -> Estimate:
    low, high = np.percentile(found[1:], PERCENTILES)
    return Estimate(mean=float(found[0]), low=float(low), high=float(high), num_seeds=num_seeds)


def _counts(number: int, *, stream: int) -> NDArray[np.float64]:
    """Return how often each item is drawn: once in the first row, then at random."""
    rng = np.random.default_rng([stream, number])
    drawn = rng.multinomial(number, np.full(number, 1 / number), size=DRAWS)
    return np.concatenate([np.ones((1, number)), drawn.astype(np.float64)])
