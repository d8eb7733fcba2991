"""Crops agree with Pillow's, whatever pads the batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from midway.data.resample import crop_resize, cut_windows, resample_matrix

BOXES = torch.tensor([[3, 5, 100, 140], [0, 0, 20, 33], [60, 80, 60, 80], [119, 0, 1, 160]])
FLIP = torch.tensor([False, True, False, True])


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
    return torch.from_numpy(np.array(crop)).permute(2, 0, 1) / 255


def assert_crops_are_pillows(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> None:
    flip = FLIP[: len(images)]
    crops = crop_resize(images, boxes, size, flip)
    for crop, image, box, mirrored in zip(crops, images, boxes.tolist(), flip, strict=True):
        expected = pillow_crop(image, box, size, bool(mirrored))
        torch.testing.assert_close(crop, expected, atol=2 / 255, rtol=0)


@pytest.mark.parametrize("size", [(64, 64), (224, 200), (7, 9)], ids=["both", "up", "down"])
def test_crops_of_noise_are_those_of_pillow(size: tuple[int, int]) -> None:
    assert_crops_are_pillows(noise(0, 4, 3, 120, 160), BOXES, size)


@pytest.mark.parametrize("size", [(224, 224), (96, 96), (30, 41)])
def test_crops_of_real_frames_are_those_of_pillow(shared_data: Path, size: tuple[int, int]) -> None:
    files = sorted((shared_data / "camvid" / "train").glob("*.png"))[::50][:4]
    frames = [torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in files]
    boxes = torch.tensor([[0, 0, 360, 480], [17, 301, 90, 70], [100, 50, 233, 319], [5, 5, 31, 29]])
    assert_crops_are_pillows(torch.stack(frames), boxes, size)


def test_a_crop_at_its_own_size_is_the_box_itself() -> None:
    image = noise(1, 1, 3, 50, 60)
    crop = crop_resize(image, torch.tensor([[10, 20, 30, 25]]), (30, 25), torch.tensor([False]))
    torch.testing.assert_close(crop, image[:, :, 10:40, 20:45] / 255)


def test_floats_and_bytes_give_the_same_crop() -> None:
    images = noise(2, 4, 3, 120, 160)
    torch.testing.assert_close(
        crop_resize(images / 255, BOXES, (40, 50), FLIP),
        crop_resize(images, BOXES, (40, 50), FLIP),
    )


def test_a_crop_does_not_depend_on_what_it_is_batched_with() -> None:
    images = noise(3, 4, 3, 120, 160)
    together = crop_resize(images, BOXES, (48, 48), FLIP)
    for i in range(4):
        one = slice(i, i + 1)
        alone = crop_resize(images[one], BOXES[one], (48, 48), FLIP[one])
        torch.testing.assert_close(together[one], alone, atol=1e-5, rtol=0)


def test_overshoot_of_a_sharp_edge_is_clipped() -> None:
    edge = torch.zeros(1, 3, 20, 20, dtype=torch.uint8)
    edge[..., 10:] = 255
    crop = crop_resize(edge, torch.tensor([[0, 0, 20, 20]]), (80, 80), torch.tensor([False]))
    assert crop.min() == 0
    assert crop.max() == 1
    matrix = resample_matrix(torch.tensor([20]), 80, 20, torch.tensor([False]))
    assert (matrix[0] @ (edge[0, 0, 0] / 255)).max() > 1.05


def test_rows_of_the_matrix_sum_to_one_and_ignore_the_padding() -> None:
    length = torch.tensor([30, 11, 1])
    flip = torch.tensor([False, True, False])
    matrix = resample_matrix(length, 16, 30, flip)
    torch.testing.assert_close(matrix.sum(2), torch.ones(3, 16))
    for weights, used in zip(matrix, length.tolist(), strict=True):
        assert (weights[:, used:] == 0).all()
        assert (weights[:, :used].abs().sum(0) > 0).all()


def test_windows_hold_their_box_and_zeros() -> None:
    images = noise(4, 4, 3, 120, 160) | 1
    windows = cut_windows(images, BOXES)
    assert windows.shape == (4, 3, 100, 160)
    assert windows.dtype == torch.uint8
    for window, image, (top, left, height, width) in zip(
        windows, images, BOXES.tolist(), strict=True
    ):
        box = image[:, top : top + height, left : left + width]
        assert torch.equal(window[:, :height, :width], box)
        assert torch.count_nonzero(window) == box.numel()


def test_cropping_never_asks_the_device_for_a_value() -> None:
    images = torch.empty(4, 3, 120, 160, dtype=torch.uint8, device="meta")
    assert crop_resize(images, BOXES, (20, 30), FLIP).shape == (4, 3, 20, 30)
