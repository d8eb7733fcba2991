"""Colour operations agree with Pillow, kornia, colorsys and scipy, in a batch and one by one."""

import colorsys
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from midway.data.views.photometric import (
    BRIGHTNESS,
    CONTRAST,
    HUE,
    NEUTRAL,
    SATURATION,
    ColourParameters,
    Photometric,
    draw_colour,
)
from midway.data.views.photometric_cpu import Distorter, each_image
from midway.data.views.photometric_gpu import apply_colour, gaussian_blur
from midway.nn.images import IMAGENET_MEAN, IMAGENET_STD, normalise

FACTORS = [0.6, 0.9, 1.0, 1.4]
Distort = Callable[[Tensor, ColourParameters], Tensor]


def in_a_batch(images: Tensor, parameters: ColourParameters) -> Tensor:
    return apply_colour(images.clone(), parameters)


def one_by_one(images: Tensor, parameters: ColourParameters) -> Tensor:
    """Return the output of `Distorter` with the normalisation undone."""
    images = images.clone()
    distort = Distorter((images.shape[2], images.shape[3]))
    for image, colour in zip(images.numpy(), each_image(parameters), strict=True):
        distort(image, colour)
    mean, std = 255 * torch.tensor((IMAGENET_MEAN, IMAGENET_STD))[..., None, None]
    return images * std + mean


@pytest.fixture(params=[in_a_batch, one_by_one], ids=lambda way: way.__name__)
def distort(request: pytest.FixtureRequest) -> Distort:
    return request.param


def byte_images(num_images: int = 4, size: tuple[int, int] = (24, 31)) -> Tensor:
    """Colour ramps with noise, a flat grey patch and saturated corners; levels of bytes."""
    generator = torch.Generator().manual_seed(0)
    height, width = size
    rows = torch.linspace(0, 200, height)[:, None].expand(size)
    columns = torch.linspace(220, 20, width).expand(size)
    ramps = torch.stack((rows, columns, (rows + columns) / 2))
    images = ramps + 50 * torch.rand(num_images, 3, *size, generator=generator)
    images = images.clamp(0, 255).floor()
    images[:, :, :5, :5] = 128
    images[:, 0, -4:, -4:] = 255
    images[:, 1:, -4:, -4:] = 0
    return images


def neutral(num_images: int) -> ColourParameters:
    """Nothing is on, though there are factors that would show."""
    return ColourParameters(
        jitter=np.zeros(num_images, dtype=bool),
        factors=np.tile(np.float32([1.3, 0.7, 1.2, 0.1]), (num_images, 1)),
        order=np.tile(np.arange(4), (num_images, 1)),
        grey=np.zeros(num_images, dtype=bool),
        blur_sigma=np.zeros(num_images, dtype=np.float32),
        solarise=np.zeros(num_images, dtype=bool),
    )


def only(which: int, values: list[float]) -> ColourParameters:
    """Jitter by one of the four operations alone, with a value for each image."""
    factors = np.tile(np.float32(NEUTRAL), (len(values), 1))
    factors[:, which] = values
    jitter = np.ones(len(values), dtype=bool)
    return dataclasses.replace(neutral(len(values)), jitter=jitter, factors=factors)


def with_fields(num_images: int = 4, **fields: Any) -> ColourParameters:
    arrays = {
        name: np.asarray(value, dtype=getattr(neutral(1), name).dtype)
        for name, value in fields.items()
    }
    return dataclasses.replace(neutral(num_images), **arrays)


def as_pillow(image: Tensor) -> Image.Image:
    return Image.fromarray(image.byte().permute(1, 2, 0).numpy())


def from_pillow(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


@pytest.mark.parametrize(
    ("which", "enhancer"),
    [
        (BRIGHTNESS, ImageEnhance.Brightness),
        (CONTRAST, ImageEnhance.Contrast),
        (SATURATION, ImageEnhance.Color),
    ],
    ids=["brightness", "contrast", "saturation"],
)
def test_adjustments_are_those_of_pillow(
    distort: Distort, which: int, enhancer: Callable[[Image.Image], Any]
) -> None:
    images = byte_images()
    adjusted = distort(images, only(which, FACTORS))
    assert (adjusted[2] - images[2]).abs().max() < 1e-3
    for image, factor, ours in zip(images, FACTORS, adjusted, strict=True):
        expected = from_pillow(enhancer(as_pillow(image)).enhance(factor))
        torch.testing.assert_close(ours, expected, atol=1.5, rtol=0)


def test_hue_turns_as_in_colorsys(distort: Distort) -> None:
    images = byte_images(size=(12, 15))
    turns = [-0.1, 0.07, 1 / 6, 0.0]
    expected = torch.empty_like(images)
    for i, turn in enumerate(turns):
        for y in range(12):
            for x in range(15):
                hue, saturation, value = colorsys.rgb_to_hsv(*(images[i, :, y, x] / 255).tolist())
                rgb = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
                expected[i, :, y, x] = 255 * torch.tensor(rgb)
    torch.testing.assert_close(distort(images, only(HUE, turns)), expected, atol=2e-3, rtol=0)


def test_jitter_of_a_real_image_is_that_of_kornia(distort: Distort, shared_data: Path) -> None:
    kornia = pytest.importorskip("kornia.enhance")
    file = min((shared_data / "camvid" / "train").glob("*.png"))
    image = from_pillow(Image.open(file).resize((96, 64)))[None]
    brightness, saturation, turn = 1.3, 0.85, -0.08
    jitter = with_fields(
        1, jitter=[True], factors=[[brightness, 1, saturation, turn]], order=[[0, 1, 3, 2]]
    )
    bright = (image / 255 * brightness).clamp(0, 1)
    turned = kornia.adjust_hue(bright, turn * 2 * torch.pi)
    grey = torch.tensor((0.299, 0.587, 0.114)) @ turned.flatten(2)
    grey = grey.view(1, 1, 64, 96)
    expected = 255 * (grey + saturation * (turned - grey))
    torch.testing.assert_close(distort(image, jitter), expected, atol=0.05, rtol=0)


def test_grey_is_pillows_luma_in_three_channels(distort: Distort) -> None:
    images = byte_images()
    for image, ours in zip(images, distort(images, with_fields(grey=[1] * 4)), strict=True):
        expected = from_pillow(as_pillow(image).convert("L").convert("RGB"))
        torch.testing.assert_close(ours, expected, atol=1, rtol=0)
        assert (ours[0] - ours[1]).abs().max() < 1e-3


def test_solarisation_is_that_of_pillow(distort: Distort) -> None:
    images = byte_images()
    for image, ours in zip(images, distort(images, with_fields(solarise=[1] * 4)), strict=True):
        expected = from_pillow(ImageOps.solarize(as_pillow(image), 128))
        torch.testing.assert_close(ours, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [(32, 48), (24, 31)], ids=["whole blocks", "odd"])
def test_blur_is_the_gaussian_of_scipy(distort: Distort, size: tuple[int, int]) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    images = byte_images(size=size)
    sigma = [0.1, 0.5, 1.3, 2.0]
    blurred = distort(images, with_fields(blur_sigma=sigma))
    for image, deviation, ours in zip(images.numpy(), sigma, blurred, strict=True):
        expected = ndimage.gaussian_filter(
            image, (0, deviation, deviation), mode="nearest", truncate=8
        )
        torch.testing.assert_close(ours, torch.from_numpy(expected), atol=0.15, rtol=0)


def test_blur_of_a_batch_is_exact_and_in_half_precision_off_by_a_fifth_of_a_level() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    image = byte_images(1)
    expected = ndimage.gaussian_filter(image.numpy(), (0, 0, 1.7, 1.7), mode="nearest", truncate=8)
    for dtype, tolerance in ((torch.float32, 1e-3), (torch.half, 0.2)):
        blurred = gaussian_blur(image.to(dtype), torch.tensor([1.7]), 1.7)
        assert blurred.dtype == dtype
        torch.testing.assert_close(
            blurred.float(), torch.from_numpy(expected), atol=tolerance, rtol=0
        )


def test_a_blur_wider_than_the_image_leaves_a_flat_image_alone(distort: Distort) -> None:
    image = torch.full((1, 3, 3, 5), 80.0)
    blurred = distort(image, with_fields(1, blur_sigma=[2.0]))
    torch.testing.assert_close(blurred, image, atol=1e-3, rtol=0)


def test_imagenets_mean_becomes_zero_and_a_deviation_one() -> None:
    mean = torch.tensor(IMAGENET_MEAN)[None, :, None, None]
    std = torch.tensor(IMAGENET_STD)[None, :, None, None]
    kept = mean.clone()
    torch.testing.assert_close(normalise(mean), torch.zeros_like(mean))
    assert torch.equal(mean, kept)
    torch.testing.assert_close(normalise(mean + std), torch.ones_like(mean))
    levels, out = (255 * (mean + std)).half(), torch.empty_like(mean)
    assert normalise(levels, white=255, out=out) is out
    torch.testing.assert_close(out, torch.ones_like(mean), atol=2e-3, rtol=0)


def test_nothing_happens_to_an_image_that_drew_nothing(distort: Distort) -> None:
    images = byte_images()
    torch.testing.assert_close(distort(images, neutral(4)), images, atol=1e-3, rtol=0)


def test_each_image_is_jittered_in_its_own_order(distort: Distort) -> None:
    images = byte_images()
    orders = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [0, 1, 2, 3]]
    parameters = with_fields(jitter=[1, 1, 1, 0], order=orders)
    expected = images.clone()
    for i in range(3):
        for which in orders[i]:
            factor = float(parameters.factors[i, which])
            expected[i : i + 1] = in_a_batch(expected[i : i + 1], only(which, [factor]))
    assert not torch.allclose(expected[0], expected[1], atol=3)
    torch.testing.assert_close(distort(images, parameters), expected, atol=1e-2, rtol=0)


def test_grey_comes_before_blur_and_blur_before_solarisation(distort: Distort) -> None:
    images = byte_images()
    flags, sigma = np.array([True, True, False, False]), [0.0, 1.5, 0.7, 0.0]
    parameters = with_fields(grey=flags, blur_sigma=sigma, solarise=~flags)
    expected = distort(images, with_fields(grey=flags))
    expected = distort(expected, with_fields(blur_sigma=sigma))
    expected = distort(expected, with_fields(solarise=~flags))
    torch.testing.assert_close(distort(images, parameters), expected, atol=1e-2, rtol=0)


def test_an_image_is_distorted_the_same_after_any_other() -> None:
    images, drawn = byte_images(), draw_many(2)
    distorter = Distorter((24, 31))
    colours = list(each_image(drawn))
    expected = []
    for image, colour in zip(images.numpy(), colours, strict=True):
        expected.append(image.copy())
        Distorter((24, 31))(expected[-1], colour)
    for i in (3, 1, 0, 2):
        again = images.numpy()[i].copy()
        distorter(again, colours[i])
        assert np.array_equal(again, expected[i])


def draw_many(num_pairs: int) -> ColourParameters:
    recipe = Photometric(p_blur=0.5, p_solarise=0.5)
    return draw_colour([recipe] * (2 * num_pairs), np.random.default_rng(0))


def test_distorting_never_asks_the_device_for_a_value() -> None:
    images = torch.empty(64, 3, 8, 9, device="meta")
    assert apply_colour(images, draw_many(32)).device.type == "meta"
    assert normalise(images).device.type == "meta"


@pytest.mark.parametrize("size", [(64, 48), (24, 31)], ids=["whole blocks", "odd"])
def test_a_blur_wider_than_usual_is_that_of_a_batch(size: tuple[int, int]) -> None:
    images = byte_images(5, size)
    sigma = [5.0, 1.0, 3.0, 4.2, 2.0]  # scratch memory grows, and serves narrower ones after
    blurred = one_by_one(images, with_fields(5, blur_sigma=sigma))
    expected = gaussian_blur(images, torch.tensor(sigma), max(sigma))
    torch.testing.assert_close(blurred, expected, atol=0.15, rtol=0)
    for image, each, deviation in zip(images, blurred, sigma, strict=True):
        fresh = one_by_one(image[None], with_fields(1, blur_sigma=[deviation]))
        assert torch.equal(each, fresh[0])


def test_a_blur_much_wider_than_the_image_leaves_a_flat_image_alone(distort: Distort) -> None:
    image = torch.full((1, 3, 3, 5), 80.0)
    blurred = distort(image, with_fields(1, blur_sigma=[5.0]))
    torch.testing.assert_close(blurred, image, atol=1e-3, rtol=0)
