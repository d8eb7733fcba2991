"""Distortion of crops equals a slow loop over pixels."""

import colorsys

import pytest
import torch

from midway.data.segmentation.crops import NEUTRAL
from midway.data.segmentation.views import as_network_input, change_hsv, distort


def test_saturation_and_hue_equal_a_slow_loop():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 5, 7, generator=generator)
    images[0, :, 0] = 0.5  # grey, black, white
    images[0, :, 1] = 0
    images[0, :, 2] = 1
    factors, turns = [0.6, 1.4], [0.1, -0.08]
    changed_images = change_hsv(images, torch.tensor(factors).view(2, 1, 1, 1), torch.tensor(turns))
    for n in range(2):
        for y in range(5):
            for x in range(7):
                h, s, v = colorsys.rgb_to_hsv(*images[n, :, y, x].tolist())
                slow = colorsys.hsv_to_rgb((h + turns[n]) % 1, min(s * factors[n], 1), v)
                assert changed_images[n, :, y, x].tolist() == pytest.approx(slow, abs=1e-5)


def test_each_part_of_the_distortion_is_clipped():
    images = torch.full((3, 3, 1, 1), 0.8)
    parameters = torch.tensor(
        [[0.1, 1.5, 1.0, 1.0, 0.0], [-0.1, 1.0, 1.5, 1.0, 0.0], [0, 0.5, 1.0, 1.0, 0.0]]
    )
    assert distort(images, parameters)[:, 0, 0, 0].tolist() == pytest.approx([1.0, 1.0, 0.4])
    neutral = torch.tensor([NEUTRAL]).expand(3, -1)
    torch.testing.assert_close(distort(images, neutral), images)


def test_padding_is_zero_for_any_distortion():
    images = torch.full((2, 3, 8, 8), 128, dtype=torch.uint8)
    parameters = torch.tensor([(0.1, 1.0, 1.2, 1.0, 0.0), NEUTRAL])
    sizes = torch.tensor([[8, 5], [6, 8]])
    given = as_network_input(images, parameters, sizes)
    assert (given[0, :, :, 5:] == 0).all()
    assert (given[1, :, 6:] == 0).all()
    assert (given[0, :, :, :5] != 0).all()
    expected = [(128 / 255 - m) / s for m, s in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
    assert given[1, :, 0, 0].tolist() == pytest.approx(expected, abs=1e-5)
