"""Bootstrap of scores over blocks of test data and over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from midway.paper.miniature.measures import MEASURES, Row

DRAWS = 1000
PERCENTILES = (2.5, 97.5)
"""Ends of the intervals, in percent."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Mean over seeds, and its interval over blocks and seeds."""

    mean: float
    low: float
    high: float
    num_seeds: int

    def touches(self, other: "Estimate") -> bool:
        """Return whether two intervals have a point in common."""
        return self.low <= other.high and other.low <= self.high


def draws(seeds: Sequence[Sequence[Row]], name: str) -> NDArray[np.float64]:
    """Return the mean over seeds of a measure, as measured and then for each draw.

    Blocks and seeds are drawn with replacement. Blocks are the same for all arms with as many of
    them, so that differences of two arms are paired.

    Args:
        seeds: Rows of each seed, with the same blocks.
        name: Name of the measure.

    Returns:
        Shape (1 + DRAWS,).

    """
    # (seeds, blocks, columns) each
    above, below = (
        np.array([[row[side] for row in rows] for rows in seeds], np.float64) for side in (0, 1)
    )
    num_seeds, num_blocks = above.shape[:2]
    blocks = _counts(num_blocks, stream=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.einsum("rb,sbc->rsc", blocks, above) / np.einsum("rb,sbc->rsc", blocks, below)
    # Columns that a draw does not contain, such as a class, do not count.
    scores = MEASURES[name].scale * np.nanmean(ratios, axis=2)  # (draws, seeds)
    return (scores * _counts(num_seeds, stream=1)).sum(1) / num_seeds


def estimate(seeds: Sequence[Sequence[Row]], name: str) -> Estimate:
    """Return mean and interval of a measure."""
    found = draws(seeds, name)
    low, high = np.percentile(found[1:], PERCENTILES)
    return Estimate(mean=float(found[0]), low=float(low), high=float(high), num_seeds=len(seeds))


def difference(
    ours: Sequence[Sequence[Row]], others: Sequence[Sequence[Row]], name: str
) -> Estimate:
    """Return mean and interval of the difference of two arms, paired by block."""
    found = draws(ours, name) - draws(others, name)
    low, high = np.percentile(found[1:], PERCENTILES)
    return Estimate(
        mean=float(found[0]),
        low=float(low),
        high=float(high),
        num_seeds=min(len(ours), len(others)),
    )


def _counts(number: int, *, stream: int) -> NDArray[np.float64]:
    """Return how often each item is drawn: once in the first row, then at random."""
    rng = np.random.default_rng([stream, number])
    drawn = rng.multinomial(number, np.full(number, 1 / number), size=DRAWS)
    return np.concatenate([np.ones((1, number)), drawn.astype(np.float64)])
