"""Crops agree with Pillow's, wherever they lie and whatever they are batched with."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from midway.data.views.resample import banded_matrix, crop_resize, resample_taps
from midway.nn.images import send

BOXES = np.array([[3, 5, 100, 140], [0, 0, 20, 33], [60, 80, 60, 80], [119, 0, 1, 160]])
FLIP = np.array([False, True, False, True])


def noise(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def pillow_crop(image: Tensor, box: list[int], size: tuple[int, int], flip: bool) -> Tensor:
    top, left, height, width = box
    crop = Image.fromarray(image.permute(1, 2, 0).numpy())
    crop = crop.crop((left, top, left + width, top + height))
    crop = crop.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    if flip:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.array(crop)).permute(2, 0, 1).float()


def crop_each(
    images: Tensor, boxes: np.ndarray, size: tuple[int, int], dtype: torch.dtype = torch.float32
) -> Tensor:
    """One crop of each image."""
    (crops,) = crop_resize(images, boxes[None], FLIP[None, : len(images)], size, dtype)
    return crops


def assert_crops_are_pillows(images: Tensor, boxes: np.ndarray, size: tuple[int, int]) -> None:
    crops = crop_each(images, boxes, size)
    for crop, image, box, mirrored in zip(crops, images, boxes.tolist(), FLIP, strict=True):
        expected = pillow_crop(image, box, size, bool(mirrored))
        torch.testing.assert_close(crop, expected, atol=2, rtol=0)


@pytest.mark.parametrize("size", [(64, 64), (224, 200), (7, 9)], ids=["both", "up", "down"])
def test_crops_of_noise_are_those_of_pillow(size: tuple[int, int]) -> None:
    assert_crops_are_pillows(noise(0, 4, 3, 120, 160), BOXES, size)


@pytest.mark.parametrize("size", [(224, 224), (96, 96), (30, 41)])
def test_crops_of_real_frames_are_those_of_pillow(shared_data: Path, size: tuple[int, int]) -> None:
    files = sorted((shared_data / "camvid" / "train").glob("*.png"))[::50][:4]
    frames = [torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in files]
    boxes = np.array([[0, 0, 360, 480], [17, 301, 90, 70], [100, 50, 233, 319], [5, 5, 31, 29]])
    assert_crops_are_pillows(torch.stack(frames), boxes, size)


def test_half_precision_is_off_by_less_than_half_a_level_on_noise() -> None:
    images = noise(0, 4, 3, 120, 160)
    for size in ((64, 64), (224, 200), (7, 9)):
        exact = crop_each(images, BOXES, size)
        half = crop_each(images, BOXES, size, torch.half)
        assert half.dtype == torch.half
        torch.testing.assert_close(half.float(), exact, atol=0.5, rtol=0)


def test_a_crop_at_its_own_size_is_the_box_itself() -> None:
    image = noise(1, 1, 3, 50, 60)
    crop = crop_each(image, np.array([[10, 20, 30, 25]]), (30, 25))
    torch.testing.assert_close(crop, image[:, :, 10:40, 20:45].float(), atol=1e-4, rtol=0)


def test_several_crops_of_an_image_come_one_after_another() -> None:
    images = noise(5, 2, 3, 120, 160)
    boxes, flip = BOXES.reshape(2, 2, 4), FLIP.reshape(2, 2)
    crops = list(crop_resize(images, boxes, flip, (20, 30)))
    assert len(crops) == 2
    for k, crop in enumerate(crops):
        for i in range(2):
            expected = pillow_crop(images[i], boxes[k, i].tolist(), (20, 30), bool(flip[k, i]))
            torch.testing.assert_close(crop[i], expected, atol=2, rtol=0)


def test_a_crop_does_not_depend_on_the_rest_of_its_batch() -> None:
    images = noise(3, 4, 3, 120, 160)
    together = crop_each(images, BOXES, (48, 48))
    for i in range(4):
        one = slice(i, i + 1)
        (alone,) = crop_resize(images[one], BOXES[None, one], FLIP[None, one], (48, 48))
        torch.testing.assert_close(together[one], alone, atol=1e-3, rtol=0)


def test_pixels_outside_the_box_do_not_count() -> None:
    images = noise(4, 4, 3, 120, 160)
    others = noise(5, 4, 3, 120, 160)
    for image, (top, left, height, width) in zip(others, BOXES.tolist(), strict=True):
        rows, columns = slice(top, top + height), slice(left, left + width)
        image[:, rows, columns] = images[len(images) - 4, :, rows, columns]
    first = images[:1].expand(4, -1, -1, -1)
    assert torch.equal(crop_each(first, BOXES, (48, 40)), crop_each(others, BOXES, (48, 40)))


def test_overshoot_of_a_sharp_edge_is_clipped() -> None:
    edge = torch.zeros(1, 3, 20, 20, dtype=torch.uint8)
    edge[..., 10:] = 255
    crop = crop_each(edge, np.array([[0, 0, 20, 20]]), (80, 80))
    assert crop.min() == 0
    assert crop.max() == 255
    matrix = axis_matrix([0], [20], 80, 20)
    assert (matrix[0] @ edge[0, 0, 0].float()).max() > 1.05 * 255


def axis_matrix(start: list[int], length: list[int], out_size: int, in_size: int) -> Tensor:
    taps, columns = resample_taps(
        torch.tensor(start), torch.tensor(length), max(length), out_size, torch.zeros(len(start))
    )
    return banded_matrix(taps, columns, in_size)


def test_rows_of_the_matrix_sum_to_one_and_keep_to_their_part() -> None:
    start, length = [0, 12, 29], [30, 11, 1]
    matrix = axis_matrix(start, length, 16, 30)
    torch.testing.assert_close(matrix.sum(2), torch.ones(3, 16))
    for weights, first, used in zip(matrix, start, length, strict=True):
        inside = torch.zeros(30, dtype=torch.bool)
        inside[first : first + used] = True
        assert (weights[:, ~inside] == 0).all()
        assert (weights[:, inside].abs().sum(0) > 0).all()


def test_small_arrays_arrive_in_their_shapes() -> None:
    arrays = np.arange(6).reshape(2, 3), np.array([True, False]), np.zeros((0, 4)), np.float32([7])
    sent = send(torch.device("cpu"), *arrays)
    for tensor, array in zip(sent, arrays, strict=True):
        assert tensor.dtype == torch.float32
        assert np.array_equal(tensor.numpy(), array)


def test_cropping_never_asks_the_device_for_a_value() -> None:
    images = torch.empty(4, 3, 120, 160, dtype=torch.uint8, device="meta")
    assert crop_each(images, BOXES, (20, 30)).shape == (4, 3, 20, 30)
