"""Endpoint errors equal a slow loop over pixels, dense and sparse."""

import math

import numpy as np
import pytest

from midway.errors import MidwayError
from midway.evals.metrics.flow import FlowScore, Scores, pair_errors


def random_pair(seed, unknown_share=0.3):
    rng = np.random.default_rng(seed)
    shape = (9, 11, 2)
    truth = rng.normal(0, 25, shape).astype(np.float32)
    predicted = (truth + rng.normal(0, 3, shape)).astype(np.float32)
    truth[rng.random(shape[:2]) < unknown_share] = np.inf
    return predicted, truth, rng.random(shape[:2]) < 0.2


def slow_score(pairs):
    """All measures of a set by a loop over its pixels."""
    sums, counts, epes = {}, {}, []

    def add(name, value):
        sums[name] = sums.get(name, 0) + value
        counts[name] = counts.get(name, 0) + 1

    for predicted, truth, occluded in pairs:
        errors = []
        for y, x in np.ndindex(truth.shape[:2]):
            u, v = map(float, truth[y, x])
            if not (math.isfinite(u) and math.isfinite(v)):
                continue
            du, dv = float(predicted[y, x, 0]) - u, float(predicted[y, x, 1]) - v
            error, length = math.sqrt(du * du + dv * dv), math.sqrt(u * u + v * v)
            errors.append(error)
            add("epe_pixels", error)
            add("l1", abs(du) + abs(dv))
            for threshold in (0.5, 1, 3, 5):
                add(f"bad_{threshold}", 100 if error > threshold else 0)
            add("f1", 100 if error > 3 and error / length > 0.05 else 0)
            speed = "0_10" if length < 10 else "10_40" if length < 40 else "40"
            add(f"epe_{speed}", error)
            add("epe_occluded" if occluded[y, x] else "epe_visible", error)
        epes.append(sum(errors) / len(errors))
    return sum(epes) / len(epes), {name: sums[name] / counts[name] for name in sums}


def test_all_measures_equal_a_slow_loop():
    pairs = [random_pair(seed, share) for seed, share in ((0, 0.0), (1, 0.3), (2, 0.9))]
    score = FlowScore.of([pair_errors(*pair) for pair in pairs])
    epe, measures = slow_score(pairs)
    assert score.num_pairs == 3
    assert score.epe == pytest.approx(epe)
    assert score.by_pixels == pytest.approx(measures)
    # Pairs differ in their number of known pixels, so the two means differ.
    assert score.epe != pytest.approx(score.by_pixels["epe_pixels"], rel=1e-3)


def test_a_perfect_prediction_has_no_error_and_long_motion_counts():
    truth = np.full((4, 4, 2), 900.0)
    score = FlowScore.of([pair_errors(truth.copy(), truth)])
    assert score.epe == 0
    assert score.by_pixels["bad_0.5"] == 0
    assert score.by_pixels["epe_40"] == 0
    assert math.isnan(score.by_pixels["epe_0_10"])
    assert "epe_visible" not in score.by_pixels
    wrong = FlowScore.of([pair_errors(np.zeros((4, 4, 2)), truth)])
    assert wrong.epe == pytest.approx(900 * 2**0.5)


def test_groups_are_scored_apart():
    scores = Scores()
    for name, rendering, error in (("a", "clean", 1), ("a", "final", 2), ("b", "clean", 6)):
        truth = np.zeros((2, 2, 2))
        predicted = truth + np.array([error, 0])
        scores.add(pair_errors(predicted, truth), sequence=name, rendering=rendering)
    assert scores.total().epe == 3
    assert scores.epe_by_sequence() == {"a": 1.5, "b": 6}
    assert scores.epe_by_rendering() == {"clean": 3.5, "final": 2}


def test_what_cannot_be_scored_is_told():
    truth = np.zeros((2, 3, 2))
    with pytest.raises(
        MidwayError, match=r"has shape \(2, 2, 2\), the ground truth has \(2, 3, 2\)"
    ):
        pair_errors(np.zeros((2, 2, 2)), truth)
    with pytest.raises(MidwayError, match="not finite"):
        pair_errors(truth * np.nan, truth)
    with pytest.raises(MidwayError, match="ground-truth flow: no pixel is known"):
        pair_errors(truth, truth + np.inf)
    with pytest.raises(MidwayError, match="no pairs"):
        FlowScore.of([])


def test_occlusion_masks_of_some_pairs_give_no_score():
    pairs = [pair_errors(*random_pair(0)), pair_errors(*random_pair(1)[:2])]
    for order in (pairs, pairs[::-1]):
        assert not {"epe_visible", "epe_occluded"} & FlowScore.of(order).by_pixels.keys()
    assert "epe_visible" in FlowScore.of(pairs[:1]).by_pixels


def test_truth_of_twice_the_resolution_is_scored_as_springs_benchmark_does():
    predicted, coarse, _ = random_pair(0, unknown_share=0.0)
    truth = coarse.repeat(2, 0).repeat(2, 1)
    assert pair_errors(predicted, truth).sums == pytest.approx(pair_errors(predicted, coarse).sums)
    # A pixel of two surfaces is right if it has the motion of one of them.
    truth[1::2, 1::2] = (100, 0)
    truth[::2, 1::2] = predicted
    found = pair_errors(predicted, truth)
    assert found.sums["epe"] == found.sums["l1"] == found.sums["f1"] == 0
    # It is unknown if one of its four vectors is.
    truth[0, 0], truth[5, 6] = np.inf, np.inf
    assert pair_errors(predicted, truth).counts["epe"] == 9 * 11 - 2
    with pytest.raises(MidwayError, match="predict one vector per pixel"):
        pair_errors(predicted, truth[:-1])
