"""Means and intervals over blocks and seeds."""

import pytest

from midway.paper.miniature.bootstrap import Estimate, difference, estimate
from midway.paper.miniature.measures import score

EQUAL = [([1.0], [4.0])] * 5
SPREAD = [([float(n)], [10.0]) for n in range(10)]


def test_equal_blocks_and_seeds_have_no_interval():
    found = estimate([EQUAL, EQUAL], "near")
    assert (found.mean, found.low, found.high, found.num_seeds) == (25, 25, 25, 2)


def test_the_interval_contains_the_mean_and_the_spread_of_blocks_and_of_seeds():
    blocks = estimate([SPREAD], "near")
    assert blocks.mean == pytest.approx(45)
    assert blocks.low < blocks.mean < blocks.high
    # The standard error of the mean of 0 to 90 % over ten blocks is 9 points.
    assert 12 < blocks.mean - blocks.low < 22
    seeds = estimate([EQUAL, [([3.0], [4.0])] * 5], "near")
    assert (seeds.low, seeds.mean, seeds.high) == (25, 50, 75)


def test_miou_is_the_mean_over_the_classes_that_occur():
    rows = [([2.0, 0.0, 0.0], [4.0, 0.0, 2.0]), ([2.0, 0.0, 1.0], [4.0, 0.0, 2.0])]
    assert score(rows, "linear") == pytest.approx(100 * (0.5 + 0.25) / 2)
    assert estimate([rows], "linear").mean == pytest.approx(37.5)


def test_differences_are_paired_by_block():
    better = [([above[0] + 1], below) for above, below in SPREAD]
    found = difference([better], [SPREAD], "near")
    assert (found.mean, found.low, found.high) == pytest.approx((10, 10, 10))
    # Alone, both intervals are wide and touch.
    assert estimate([better], "near").touches(estimate([SPREAD], "near"))


def test_intervals_touch_if_they_share_a_point():
    low, high = (Estimate(mean=m, low=m - 1, high=m + 1, num_seeds=1) for m in (0, 2))
    assert low.touches(high)
    assert not low.touches(Estimate(mean=9, low=8, high=10, num_seeds=1))
