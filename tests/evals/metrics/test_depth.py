"""Depth metrics equal a slow loop, and are means over images."""

import math

import pytest
import torch

from midway.errors import MidwayError
from midway.evals.metrics.depth import DepthMetric, image_score


def test_an_image_equals_a_slow_loop():
    generator = torch.Generator().manual_seed(0)
    predicted, truth = 0.5 + 9 * torch.rand(2, 50, generator=generator, dtype=torch.float64)
    rmse, abs_rel, delta1 = image_score(predicted, truth).tolist()
    pairs = [*zip(predicted.tolist(), truth.tolist(), strict=True)]
    assert rmse == pytest.approx(math.sqrt(sum((p - t) ** 2 for p, t in pairs) / 50))
    assert abs_rel == pytest.approx(sum(abs(p - t) / t for p, t in pairs) / 50)
    assert delta1 == pytest.approx(2 * sum(max(p / t, t / p) < 1.25 for p, t in pairs))


def test_the_score_is_the_mean_over_images_of_any_size():
    metric = DepthMetric(torch.device("cpu"))
    metric.add(torch.full((10,), 3.0), torch.full((10,), 2.0))
    metric.add(torch.full((1,), 2.0), torch.full((1,), 2.0))
    metric.add(torch.zeros(0), torch.zeros(0))  # an image without depth is not counted
    score = metric.score()
    assert (score.rmse, score.abs_rel, score.delta1) == (0.5, 0.25, 50.0)


def test_a_set_without_depth_has_no_score():
    with pytest.raises(MidwayError, match="no test pixel has a depth"):
        DepthMetric(torch.device("cpu")).score()
