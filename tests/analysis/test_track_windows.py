"""Tracking in windows is tracking in cut frames, and in whole frames if the window is as large."""

from dataclasses import replace

import pytest
import torch

from midway.analysis.inputs import squares_around, suited_window
from midway.analysis.tracking import track_points
from midway.errors import MidwayError
from midway.models.encoders.vit import VisionTransformer
from midway.models.vit_config import EncoderConfig
from tests.analysis.test_tracking import at, network, noise, starts

__all__ = ["network"]


@pytest.mark.parametrize("method", ["midway", "plain", "features", "heatmap"])
def test_a_step_in_a_window_is_a_step_of_the_cut_frames(network, method) -> None:
    frames, point = noise(2, 64, 80), at((41.0, 30.0))
    options = {"method": method, "num_draws": 2}
    found = track_points(network, frames, point, starts(0), window=32, **options)
    # The window of 32 pixels around column 41 begins at 41 - 15.5, rounded to 26; rows likewise.
    left, top = 26, 14
    cut = frames[:, :, top : top + 32, left : left + 32]
    corner = torch.tensor([left, top])
    inside = track_points(network, cut, point - corner, starts(0), **options)
    assert torch.allclose(found.points, inside.points + corner, atol=1e-4)
    assert torch.allclose(found.confidence, inside.confidence, atol=1e-5)


def test_a_window_as_large_as_square_frames_is_the_frames(network) -> None:
    frames, points = noise(3, 32, 32), at((3.0, 29.0), (16.0, 20.0))
    whole = track_points(network, frames, points, starts(0, 1), num_draws=2)
    for window in (32, 100):
        seen = track_points(network, frames, points, starts(0, 1), num_draws=2, window=window)
        assert torch.allclose(seen.points, whole.points, atol=1e-4)


def test_a_square_larger_than_an_axis_takes_it_whole() -> None:
    images = torch.zeros(2, 3, 64, 80, dtype=torch.uint8)
    (part,) = squares_around(images, at((41.0, 30.0)), 70)
    assert part.images.shape[2:] == (64, 70)
    assert part.corner.tolist() == [6, 0]


@pytest.mark.parametrize(("side", "window"), [(96, 192), (128, 0), (224, 0)])
def test_networks_of_small_crops_alone_have_a_window_by_default(side, window) -> None:
    encoder = VisionTransformer(replace(EncoderConfig.tiny(), depth=1, image_size=(side, side)))
    assert suited_window(encoder) == window


def test_windows_at_the_border_lie_in_the_frame(network) -> None:
    frames, points = noise(3, 48, 64), at((0.0, 0.0), (63.0, 47.0))
    found = track_points(network, frames, points, starts(0, 0), num_draws=2, window=32)
    assert (found.points[0] <= 31).all()
    assert (found.points[1] >= torch.tensor([32, 16])).all()


def test_a_negative_window_and_one_for_flow_are_refused(network) -> None:
    frames, point = noise(2, 32, 32), at((3.0, 3.0))
    with pytest.raises(MidwayError, match="give 1 or more, or 0 for whole frames"):
        track_points(network, frames, point, starts(0), window=-1)
    with pytest.raises(MidwayError, match="tracking by flow has none; leave it out"):
        track_points(network, frames, point, starts(0), window=32, method="flow")
