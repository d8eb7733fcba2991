"""Photometric draws are as frequent and as wide as their recipes say; bad recipes are refused."""

import math
from typing import Any

import numpy as np
import pytest

from midway.data.views.photometric import Photometric, draw_colour, undistorted
from midway.errors import MidwayError


def test_draws_are_as_frequent_and_as_wide_as_the_recipe_says() -> None:
    num_draws = 20_000
    recipes = [Photometric(p_blur=1.0), Photometric(p_blur=0.1, p_solarise=0.2)] * num_draws
    drawn = draw_colour(recipes, np.random.default_rng(0))
    assert drawn.jitter.mean() == pytest.approx(0.8, abs=0.01)
    assert drawn.grey.mean() == pytest.approx(0.2, abs=0.01)
    assert (drawn.blur_sigma[::2] > 0).all()
    assert (drawn.blur_sigma[1::2] > 0).mean() == pytest.approx(0.1, abs=0.01)
    assert not drawn.solarise[::2].any()
    assert drawn.solarise[1::2].mean() == pytest.approx(0.2, abs=0.015)
    low, high = np.array([0.6, 0.6, 0.8, -0.1]), np.array([1.4, 1.4, 1.2, 0.1])
    np.testing.assert_allclose(drawn.factors.min(0), low, atol=1e-3)
    np.testing.assert_allclose(drawn.factors.max(0), high, atol=1e-3)
    np.testing.assert_allclose(drawn.factors.mean(0), (low + high) / 2, atol=0.01)
    sigma = drawn.blur_sigma[::2]
    assert 0.1 <= sigma.min() < 0.11
    assert 1.99 < sigma.max() <= 2.0
    orders, counts = np.unique(drawn.order, axis=0, return_counts=True)
    assert len(orders) == 24
    assert np.abs(counts / len(drawn.order) * 24 - 1).max() < 0.15


def test_images_without_a_recipe_stay_as_they_are_and_take_no_random_numbers() -> None:
    recipe = Photometric(p_blur=0.5, p_solarise=0.5)
    some = draw_colour([None, recipe, None, recipe], np.random.default_rng(3))
    alone = draw_colour([recipe, recipe], np.random.default_rng(3))
    for name, value in vars(undistorted(2)).items():
        assert np.array_equal(getattr(some, name)[[0, 2]], value)
        assert np.array_equal(getattr(some, name)[[1, 3]], getattr(alone, name))
        assert getattr(some, name).dtype == value.dtype


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"p_jitter": 1.1}, r"photometric: p_jitter = 1\.1; give 0 to 1"),
        ({"p_grey": -0.1}, "photometric: p_grey"),
        ({"p_blur": math.nan}, "photometric: p_blur"),
        ({"p_solarise": 2}, "photometric: p_solarise"),
        ({"jitter": (0.4, 0.4, 0.2)}, r"jitter = \(0\.4, 0\.4, 0\.2\); give four numbers from 0"),
        ({"jitter": (0.4, 0.4, 0.2, 1.5)}, "photometric: jitter"),
        ({"jitter": (-0.4, 0.4, 0.2, 0.1)}, "photometric: jitter"),
        ({"blur_sigma": (0.0, 2.0)}, r"blur_sigma = \(0\.0, 2\.0\); give 0 < low <= high"),
        ({"blur_sigma": (2.0, 1.0)}, "photometric: blur_sigma"),
        ({"blur_sigma": (1.0, math.inf)}, "photometric: blur_sigma"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(MidwayError, match=message):
        Photometric(**fields)
