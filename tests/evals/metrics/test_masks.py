"""J and F against SciPy's morphology."""

import math

import numpy as np
import pytest
from scipy import ndimage

from midway.evals.metrics.masks import (
    contour,
    contour_accuracy,
    dilate,
    recall_and_decay,
    region_similarity,
)


def _blob(seed, size=(90, 140)):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=size), 6)
    return noise > 0.02


def test_j_is_intersection_over_union():
    one, two = _blob(0), _blob(1)
    both = sum(a and b for a, b in zip(one.flat, two.flat, strict=True))
    either = sum(a or b for a, b in zip(one.flat, two.flat, strict=True))
    assert region_similarity(one, two) == pytest.approx(both / either)


@pytest.mark.parametrize("radius", [0, 1, 3, 8])
def test_dilation_by_a_disk_is_that_of_distances(radius):
    mask = np.random.default_rng(2).random((40, 55)) < 0.01
    expected = ndimage.distance_transform_edt(~mask) <= radius
    np.testing.assert_array_equal(dilate(mask, radius), expected)


def test_a_contour_is_where_a_mask_differs_from_what_lies_right_and_below():
    mask = _blob(3, (30, 40))
    expected = np.zeros_like(mask)
    for y in range(30):
        for x in range(40):
            ahead = [(y, min(x + 1, 39)), (min(y + 1, 29), x), (min(y + 1, 29), min(x + 1, 39))]
            expected[y, x] = any(mask[place] != mask[y, x] for place in ahead)
    np.testing.assert_array_equal(contour(mask), expected)


@pytest.mark.parametrize("shift", [0, 1, 2, 4])
def test_f_agrees_with_distances_between_contours(shift):
    true = _blob(4)
    found = np.roll(true, shift, axis=1)
    ours, theirs = contour(found), contour(true)
    radius = math.ceil(0.008 * math.hypot(90, 140))
    to_theirs = ndimage.distance_transform_edt(~theirs)
    to_ours = ndimage.distance_transform_edt(~ours)
    precision = (to_theirs[ours] <= radius).mean()
    recall = (to_ours[theirs] <= radius).mean()
    expected = 2 * precision * recall / (precision + recall)
    assert contour_accuracy(found, true) == pytest.approx(expected)
    assert (expected > 0.95) == (shift <= radius)


def test_a_perfect_mask_scores_one_and_an_empty_one_zero():
    mask, empty = _blob(5), np.zeros((90, 140), bool)
    assert region_similarity(mask, mask) == contour_accuracy(mask, mask) == 1
    assert region_similarity(empty, empty) == contour_accuracy(empty, empty) == 1
    assert region_similarity(empty, mask) == contour_accuracy(empty, mask) == 0
    assert contour_accuracy(mask, empty) == 0


def test_recall_and_decay_are_those_of_daviss_toolkit():
    scores = [0.9, 0.8, 0.7, 0.6, 0.55, 0.4, 0.3, 0.2]
    # Borders at 1, 2.75, 4.5, 6.25 and 8: frames 1 to 3 and 6 to 8, counted from 1.
    found = recall_and_decay("j", scores)
    assert found == pytest.approx({"j_recall": 5 / 8, "j_decay": 0.8 - 0.3})
    assert recall_and_decay("f", [0.5]) == {"f_recall": 0, "f_decay": 0}
