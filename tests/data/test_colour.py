"""Colour operations agree with Pillow, colorsys and scipy, and touch only whom they should."""

import colorsys
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from midway.data.colour import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ColourParameters,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    apply_colour,
    draw_colour,
    gaussian_blur,
    normalise,
    solarise,
    to_grey,
)

FACTORS = torch.tensor([0.6, 0.9, 1.0, 1.4])


def byte_images(num_images: int = 4, size: tuple[int, int] = (24, 31)) -> Tensor:
    """Colour ramps with noise, a flat grey patch and saturated corners."""
    generator = torch.Generator().manual_seed(0)
    height, width = size
    rows = torch.linspace(0, 200, height)[:, None].expand(size)
    columns = torch.linspace(220, 20, width).expand(size)
    ramps = torch.stack((rows, columns, (rows + columns) / 2))
    images = ramps + 50 * torch.rand(num_images, 3, *size, generator=generator)
    images = images.clamp(0, 255).byte()
    images[:, :, :5, :5] = 128
    images[:, 0, -4:, -4:] = 255
    images[:, 1:, -4:, -4:] = 0
    return images


def as_pillow(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def from_pillow(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


@pytest.mark.parametrize(
    ("operation", "enhancer"),
    [
        (adjust_brightness, ImageEnhance.Brightness),
        (adjust_contrast, ImageEnhance.Contrast),
        (adjust_saturation, ImageEnhance.Color),
    ],
    ids=["brightness", "contrast", "saturation"],
)
def test_adjustments_are_those_of_pillow(
    operation: Callable[[Tensor, Tensor], Tensor],
    enhancer: Callable[[Image.Image], Any],
) -> None:
    images = byte_images()
    adjusted = operation(images / 255, FACTORS)
    for image, factor, ours in zip(images, FACTORS.tolist(), adjusted, strict=True):
        expected = from_pillow(enhancer(as_pillow(image)).enhance(factor))
        torch.testing.assert_close(ours, expected, atol=1.5 / 255, rtol=0)


def test_hue_turns_as_in_colorsys() -> None:
    images = byte_images(size=(12, 15)) / 255
    turns = torch.tensor([-0.1, 0.07, 0.5, 0.0])
    turned = adjust_hue(images, turns)
    expected = torch.empty_like(images)
    for i, turn in enumerate(turns.tolist()):
        for y in range(12):
            for x in range(15):
                hue, saturation, value = colorsys.rgb_to_hsv(*images[i, :, y, x].tolist())
                rgb = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
                expected[i, :, y, x] = torch.tensor(rgb)
    torch.testing.assert_close(turned, expected, atol=1e-5, rtol=0)


def test_grey_is_pillows_luma_in_three_channels() -> None:
    images = byte_images()
    for image, ours in zip(images, to_grey(images / 255), strict=True):
        expected = from_pillow(as_pillow(image).convert("L").convert("RGB"))
        torch.testing.assert_close(ours, expected, atol=1 / 255, rtol=0)


def test_solarisation_is_that_of_pillow() -> None:
    images = byte_images()
    for image, ours in zip(images, solarise(images / 255), strict=True):
        expected = from_pillow(ImageOps.solarize(as_pillow(image), 128))
        torch.testing.assert_close(ours, expected)


def test_blur_is_the_gaussian_of_scipy() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    images = byte_images() / 255
    sigma = torch.tensor([0.1, 0.5, 1.3, 2.0])
    for image, deviation, ours in zip(
        images.numpy(), sigma.tolist(), gaussian_blur(images, sigma), strict=True
    ):
        expected = ndimage.gaussian_filter(
            image, (0, deviation, deviation), mode="nearest", truncate=8
        )
        torch.testing.assert_close(ours, torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_a_blur_wider_than_the_image_leaves_a_flat_image_alone() -> None:
    image = torch.full((1, 3, 3, 5), 0.3)
    torch.testing.assert_close(gaussian_blur(image, torch.tensor([4.0])), image)


def test_imagenets_mean_becomes_zero_and_a_deviation_one() -> None:
    mean = torch.tensor(IMAGENET_MEAN)[None, :, None, None]
    std = torch.tensor(IMAGENET_STD)[None, :, None, None]
    torch.testing.assert_close(normalise(mean), torch.zeros_like(mean))
    torch.testing.assert_close(normalise(mean + std), torch.ones_like(mean))


def neutral(num_images: int) -> ColourParameters:
    return ColourParameters(
        jitter=torch.zeros(num_images, dtype=torch.bool),
        factors=torch.tensor([1.3, 0.7, 1.2, 0.1]).expand(num_images, 4),
        order=torch.arange(4).expand(num_images, 4),
        grey=torch.zeros(num_images, dtype=torch.bool),
        blur_sigma=torch.zeros(num_images),
        solarise=torch.zeros(num_images, dtype=torch.bool),
    )


def test_nothing_happens_to_an_image_that_drew_nothing() -> None:
    images = byte_images() / 255
    assert torch.equal(apply_colour(images.clone(), neutral(4)), images)


def test_each_image_is_jittered_in_its_own_order() -> None:
    images = byte_images() / 255
    orders = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [0, 1, 2, 3]]
    jitter = torch.tensor([True, True, True, False])
    parameters = dataclasses.replace(neutral(4), jitter=jitter, order=torch.tensor(orders))
    operations = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
    expected = images.clone()
    for i in range(3):
        for which in orders[i]:
            factor = parameters.factors[i : i + 1, which]
            expected[i : i + 1] = operations[which](expected[i : i + 1], factor)
    assert not torch.allclose(expected[0], expected[1], atol=0.01)
    torch.testing.assert_close(apply_colour(images, parameters), expected)


def test_grey_comes_before_blur_and_blur_before_solarisation() -> None:
    images = byte_images() / 255
    sigma = torch.tensor([0.0, 1.5, 0.7, 0.0])
    flags = torch.tensor([True, True, False, False])
    parameters = dataclasses.replace(neutral(4), grey=flags, blur_sigma=sigma, solarise=~flags)
    expected = images.clone()
    expected[:2] = to_grey(expected[:2])
    expected[1:3] = gaussian_blur(expected[1:3], sigma[1:3])
    expected[2:] = solarise(expected[2:])
    torch.testing.assert_close(apply_colour(images, parameters), expected)


def test_distorting_never_asks_the_device_for_a_value() -> None:
    p_half = torch.full((64,), 0.5)
    parameters = draw_colour(p_half, p_half, torch.Generator().manual_seed(0))
    images = normalise(apply_colour(torch.empty(64, 3, 8, 9, device="meta"), parameters))
    assert images.device.type == "meta"


def test_draws_are_as_frequent_and_as_wide_as_the_recipe_says() -> None:
    num_draws = 20_000
    p_blur = torch.tensor([1.0, 0.1]).repeat(num_draws)
    p_solarise = torch.tensor([0.0, 0.2]).repeat(num_draws)
    drawn = draw_colour(p_blur, p_solarise, torch.Generator().manual_seed(0))

    def share(chosen: Tensor) -> float:
        return chosen.float().mean().item()

    assert share(drawn.jitter) == pytest.approx(0.8, abs=0.01)
    assert share(drawn.grey) == pytest.approx(0.2, abs=0.01)
    assert share(drawn.blur_sigma[::2] > 0) == 1
    assert share(drawn.blur_sigma[1::2] > 0) == pytest.approx(0.1, abs=0.01)
    assert share(drawn.solarise[::2]) == 0
    assert share(drawn.solarise[1::2]) == pytest.approx(0.2, abs=0.015)
    low = torch.tensor([0.6, 0.6, 0.8, -0.1])
    high = torch.tensor([1.4, 1.4, 1.2, 0.1])
    torch.testing.assert_close(drawn.factors.amin(0), low, atol=1e-3, rtol=0)
    torch.testing.assert_close(drawn.factors.amax(0), high, atol=1e-3, rtol=0)
    torch.testing.assert_close(drawn.factors.mean(0), (low + high) / 2, atol=0.01, rtol=0)
    sigma = drawn.blur_sigma[::2]
    assert 0.1 <= sigma.min() < 0.11
    assert 1.99 < sigma.max() <= 2.0
    orders, counts = drawn.order.unique(dim=0, return_counts=True)
    assert len(orders) == 24
    assert (counts / len(drawn.order) * 24 - 1).abs().max() < 0.15
