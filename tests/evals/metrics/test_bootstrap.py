"""Means and intervals over blocks and seeds."""

import math

import pytest

from midway.evals.metrics.bootstrap import Estimate, Row, difference, estimate, ratio_score

EQUAL: list[Row] = [([1.0], [4.0])] * 5
SPREAD: list[Row] = [([float(n)], [10.0]) for n in range(10)]


def test_equal_blocks_and_seeds_have_no_interval():
    found = estimate([EQUAL, EQUAL])
    assert (found.mean, found.low, found.high, found.num_seeds) == (0.25, 0.25, 0.25, 2)


def test_the_interval_contains_the_mean_and_the_spread_of_blocks_and_of_seeds():
    blocks = estimate([SPREAD])
    assert blocks.mean == pytest.approx(0.45)
    assert blocks.low < blocks.mean < blocks.high
    # The standard error of the mean of 0 to 0.9 over ten blocks is 0.09.
    assert 0.12 < blocks.mean - blocks.low < 0.22
    seeds = estimate([EQUAL, [([3.0], [4.0])] * 5])
    assert (seeds.low, seeds.mean, seeds.high) == (0.25, 0.5, 0.75)


def test_the_score_is_the_mean_over_the_columns_that_occur():
    rows: list[Row] = [([2.0, 0.0, 0.0], [4.0, 0.0, 2.0]), ([2.0, 0.0, 1.0], [4.0, 0.0, 2.0])]
    assert ratio_score(rows) == pytest.approx((0.5 + 0.25) / 2)
    assert estimate([rows]).mean == pytest.approx(0.375)
    assert math.isnan(ratio_score([([0.0], [0.0])]))


def test_differences_are_paired_by_block():
    better: list[Row] = [([above[0] + 1], below) for above, below in SPREAD]
    found = difference([better], [SPREAD])
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    # Alone, both intervals are wide and touch.
    assert estimate([better]).touches(estimate([SPREAD]))


def test_intervals_touch_if_they_share_a_point():
    low, high = (Estimate(mean=m, low=m - 1, high=m + 1, num_seeds=1) for m in (0, 2))
    assert low.touches(high)
    assert not low.touches(Estimate(mean=9, low=8, high=10, num_seeds=1))
