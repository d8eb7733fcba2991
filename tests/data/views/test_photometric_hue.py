"""Hue turns over the whole circle as in HSV, in a batch and one by one."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from midway.data.views.photometric import HUE
from midway.data.views.photometric_gpu import turn_hue
from tests.data.views.test_photometric_gpu import byte_images, one_by_one, only


def turned_as_in_hsv(images: NDArray[np.float64], turns: NDArray[np.float64]) -> NDArray:
    """The textbook way through HSV and back, pixel by pixel in all but words; (B, 3, H, W)."""
    red, green, blue = images.swapaxes(0, 1)
    value = images.max(1)
    chroma = value - images.min(1)
    divisor = np.where(chroma > 0, chroma, 1)
    sixths = np.select(
        [value == red, value == green],
        [(green - blue) / divisor % 6, (blue - red) / divisor + 2],
        (red - green) / divisor + 4,
    )
    sixths = sixths + 6 * turns[:, None, None]

    def channel(place: int) -> NDArray:
        share = (place + sixths) % 6
        return value - chroma * np.clip(np.minimum(share, 4 - share), 0, 1)

    return np.stack([channel(5), channel(3), channel(1)], axis=1)


def turn_in_a_batch(images: Tensor, turns: Tensor) -> Tensor:
    return turn_hue(images.clone(), turns)


def turn_one_by_one(images: Tensor, turns: Tensor) -> Tensor:
    return one_by_one(images, only(HUE, turns.tolist()))


@pytest.mark.parametrize("turn", [turn_in_a_batch, turn_one_by_one])
def test_hue_turns_over_the_whole_circle_as_in_hsv(
    turn: Callable[[Tensor, Tensor], Tensor],
) -> None:
    generator = torch.Generator().manual_seed(0)
    turns = torch.linspace(-1, 1, 241)
    images = 255 * torch.rand(len(turns), 3, 9, 8, generator=generator)
    images[:, :, :2] = images[:, :, :2].round()  # bytes, where channels meet more often
    images[:, 1, 2] = images[:, 0, 2]
    images[:, 2, 3] = images[:, 1, 3]
    images[:, :, 4] = images[:, :1, 4]
    expected = turned_as_in_hsv(images.double().numpy(), turns.double().numpy())
    turned = turn(images, turns).double().numpy()
    np.testing.assert_allclose(turned, expected, atol=2e-3, rtol=0)


def test_thirds_of_a_turn_move_the_channels_and_nothing_else() -> None:
    images = byte_images(7)
    turns = torch.arange(-3, 4) / 3
    moved = [torch.roll(image, shift, 0) for image, shift in zip(images, range(-3, 4), strict=True)]
    assert torch.equal(turn_in_a_batch(images, turns), torch.stack(moved))
    one = turn_one_by_one(images, turns)
    torch.testing.assert_close(one, torch.stack(moved), atol=1e-3, rtol=0)


def turned_at_most_a_sixth(images: Tensor, turns: Tensor) -> Tensor:
    """The hue's turn of version 0.1."""
    turns = turns[:, None, None, None]
    highest, lowest = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    rolled = images.roll(1, 1), images.roll(-1, 1)
    before, after = torch.where(turns > 0, *rolled), torch.where(turns > 0, *rolled[::-1])
    share = 6 * turns.abs()
    rise, fall = torch.lerp(lowest, highest, share), torch.lerp(highest, lowest, share)
    return (torch.where(before == highest, rise, fall) + images - after).clamp(lowest, highest)


def test_turns_within_a_sixth_are_bit_by_bit_those_of_version_0_1() -> None:
    turns = torch.linspace(-0.166, 0.166, 101)
    images = byte_images(101)
    for dtype in (torch.float32, torch.half):
        typed = images.to(dtype), turns.to(dtype)
        assert torch.equal(turn_in_a_batch(*typed), turned_at_most_a_sixth(*typed))
