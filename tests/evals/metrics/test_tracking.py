"""TAP-Vid's measures against a loop over points and frames."""

import math

import numpy as np
import pytest

from midway.evals.metrics.tracking import THRESHOLDS, mean_scores, queries, tap_vid_scores

RNG = np.random.default_rng(0)
TRUE = RNG.uniform(0, 255, (6, 9, 2))
HIDDEN = RNG.random((6, 9)) < 0.3
FOUND = TRUE + RNG.normal(0, 5, TRUE.shape)
SAID = RNG.random((6, 9)) < 0.4
QUERIES = np.array([0, 2, 8, 4, 0, 7])


def _loop(mode):
    """As section 4 of the paper says it, point by point."""
    hits, total = 0, 0
    near = dict.fromkeys(THRESHOLDS, 0)
    visible = 0
    positives, errors = dict.fromkeys(THRESHOLDS, 0), dict.fromkeys(THRESHOLDS, 0)
    missed = dict.fromkeys(THRESHOLDS, 0)
    for point in range(6):
        for frame in range(9):
            counts = frame > QUERIES[point] if mode == "first" else frame != QUERIES[point]
            if not counts:
                continue
            total += 1
            hits += SAID[point, frame] == HIDDEN[point, frame]
            is_seen, is_said = not HIDDEN[point, frame], not SAID[point, frame]
            visible += is_seen
            distance = math.dist(TRUE[point, frame], FOUND[point, frame])
            for threshold in THRESHOLDS:
                right = distance < threshold
                near[threshold] += is_seen and right
                positives[threshold] += is_seen and is_said and right
                errors[threshold] += is_said and not (is_seen and right)
                missed[threshold] += is_seen and not (is_said and right)
    scores = {"occlusion_accuracy": hits / total}
    for t in THRESHOLDS:
        scores[f"position_accuracy_{t}"] = near[t] / visible
        scores[f"jaccard_{t}"] = positives[t] / (positives[t] + errors[t] + missed[t])
    scores["position_accuracy"] = sum(scores[f"position_accuracy_{t}"] for t in THRESHOLDS) / 5
    scores["average_jaccard"] = sum(scores[f"jaccard_{t}"] for t in THRESHOLDS) / 5
    return scores


def _scores(mode, points=FOUND, occluded=SAID):
    return tap_vid_scores(
        points=points,
        occluded=occluded,
        true_points=TRUE,
        true_occluded=HIDDEN,
        query_frames=QUERIES,
        mode=mode,
    )


@pytest.mark.parametrize("mode", ["first", "strided"])
def test_scores_agree_with_a_loop_over_points_and_frames(mode):
    expected = _loop(mode)
    assert 0.1 < expected["average_jaccard"] < 0.9
    assert _scores(mode) == pytest.approx(expected)


@pytest.mark.parametrize("mode", ["first", "strided"])
def test_true_tracks_have_full_marks(mode):
    assert set(_scores(mode, TRUE, HIDDEN).values()) == {1.0}


def test_where_no_point_counts_there_is_no_score():
    nothing = tap_vid_scores(
        points=TRUE[:1],
        occluded=HIDDEN[:1],
        true_points=TRUE[:1],
        true_occluded=HIDDEN[:1],
        query_frames=np.array([8]),
        mode="first",
    )
    assert all(math.isnan(value) for value in nothing.values())
    assert set(mean_scores([nothing]).values()) == {None}
    found = mean_scores([nothing, _scores("first"), _scores("first", TRUE, HIDDEN)])
    expected = (_scores("first")["average_jaccard"] + 1) / 2
    assert found["average_jaccard"] == pytest.approx(expected)


def test_queries_begin_where_a_point_is_first_seen_or_in_every_fifth_frame():
    occluded = np.ones((3, 12), bool)
    occluded[0, [3, 4, 5, 10]] = False
    occluded[1, 0] = False  # the third point is never seen
    points, frames = queries(occluded, "first")
    assert (points.tolist(), frames.tolist()) == ([0, 1], [3, 0])
    points, frames = queries(occluded, "strided")
    assert (points.tolist(), frames.tolist()) == ([1, 0, 0], [0, 5, 10])
