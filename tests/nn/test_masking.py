"""Masks have the shares, sizes and aspect ratios of the published recipes."""

import math
import random
import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from midway.nn.masking import (
    block_mask,
    count_masked,
    draw_blocks,
    gather_tokens,
    kept_and_masked,
    random_mask,
    scatter_tokens,
    tube_mask,
)
from tests.lightly_files import lightly_file

GRID = (14, 14)
DRAWS = 10_000
LEAST_P = 1e-3
"""Each statistical test errs with this probability over seeds; the seed is fixed."""


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _slow_block_mask(ratio: float, rng: random.Random) -> np.ndarray:
    """One mask, rectangle by rectangle, as the recipe of iBOT words it."""
    rows, columns = GRID
    mask = np.zeros(GRID, bool)
    while mask.sum() < ratio * mask.size:
        remaining = ratio * mask.size - mask.sum()
        for _ in range(10):
            area = rng.uniform((min(GRID) // 3) ** 2, remaining)
            aspect = math.exp(rng.uniform(math.log(0.3), -math.log(0.3)))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height >= rows or width >= columns:
                continue
            top, left = rng.randint(0, rows - height), rng.randint(0, columns - width)
            block = mask[top : top + height, left : left + width]
            if 0 < block.size - block.sum() <= remaining:
                block[:] = True
                break
        else:
            break
    return mask


@pytest.mark.parametrize(("ratio", "count"), [(0.75, 147), (0.9, 176), (0.0, 0), (1.0, 196)])
def test_a_random_mask_has_the_exact_count(ratio: float, count: int) -> None:
    mask = random_mask(7, 196, ratio)
    assert count_masked(196, ratio) == count
    assert mask.sum(1).tolist() == [count] * 7


def test_rounding_of_the_machine_takes_no_patch_away() -> None:
    assert int(0.29 * 100) == 28
    assert count_masked(100, 0.29) == 29


def test_every_patch_is_masked_equally_often_and_independently_of_its_neighbour() -> None:
    mask = random_mask(DRAWS, 16, 0.75).double()
    # 12 of 16 without replacement: P(one) = 3/4, P(two) = 3/4 * 11/15.
    assert stats.chisquare(mask.sum(0)).pvalue > LEAST_P
    both = (mask.T @ mask)[*np.triu_indices(16, 1)] / DRAWS
    error = math.sqrt(0.55 * 0.45 / DRAWS)
    assert (both - 0.55).abs().max() < 4.5 * error  # 120 pairs


def test_a_tube_masks_the_same_patches_in_all_slices() -> None:
    mask = tube_mask(5, 8, 196, 0.9)
    assert mask.shape == (5, 1568)
    assert mask.sum(1).tolist() == [8 * 176] * 5
    slices = mask.unflatten(1, (8, 196))
    assert (slices == slices[:, :1]).all()
    assert not torch.equal(mask[0], mask[1])


def test_areas_are_uniform_and_aspect_ratios_log_uniform() -> None:
    # On a fine grid, rounding to whole patches is no matter, and every rectangle fits.
    side, most = 6000, 6.4e6
    _, _, height, width = draw_blocks(torch.full((DRAWS,), most), (side, side)).T.double()
    least = (side // 3) ** 2
    area, aspect = height * width, height / width
    assert stats.kstest(area, stats.uniform(least, most - least).cdf).pvalue > LEAST_P
    log = aspect.log() / math.log(1 / 0.3)
    assert stats.kstest(log, stats.uniform(-1, 2).cdf).pvalue > LEAST_P


def test_a_rectangle_may_lie_anywhere_and_is_shorter_than_the_grid() -> None:
    top, left, height, width = draw_blocks(torch.full((DRAWS,), 90.0), GRID).T
    assert height.max() == width.max() == 13
    empty = height == 0
    assert (width[empty] == 0).all()
    assert 0 < empty.float().mean() < 0.5
    for start, length in ((top, height), (left, width)):
        # Equally likely at each of the places that a length leaves.
        chosen = length == 9
        places = start[chosen].bincount(minlength=14 - 9 + 1)
        assert len(places) == 6
        assert stats.chisquare(places).pvalue > LEAST_P


def _assert_alike(masks: np.ndarray, wanted: np.ndarray) -> None:
    """Compare the distributions of sizes and forms of two sets of masks."""
    measures: list[Callable[[np.ndarray], np.ndarray]] = [
        lambda masks: masks.sum((1, 2)),
        # Rows and columns touched, and edges between masked and kept: the form of the blocks.
        lambda masks: masks.any(2).sum(1),
        lambda masks: masks.any(1).sum(1),
        lambda masks: (masks[:, 1:] != masks[:, :-1]).sum((1, 2)),
        lambda masks: (masks[:, :, 1:] != masks[:, :, :-1]).sum((1, 2)),
        lambda masks: masks[:, 7, 7],
    ]
    for measure in measures:
        assert stats.ks_2samp(measure(masks), measure(wanted)).pvalue > LEAST_P / len(measures)


def _block_masks(ratio: float) -> np.ndarray:
    return block_mask(torch.full((DRAWS,), ratio), GRID).unflatten(1, GRID).numpy()


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5])
def test_block_masks_are_distributed_as_those_of_a_slow_loop(ratio: float) -> None:
    rng = random.Random(0)
    slow = np.stack([_slow_block_mask(ratio, rng) for _ in range(DRAWS // 5)])
    fast = _block_masks(ratio)
    assert fast.mean((1, 2)).max() <= ratio
    _assert_alike(fast, slow)


def test_block_masks_are_distributed_as_those_of_lightly(monkeypatch: pytest.MonkeyPatch) -> None:
    # Only the file's own import of torchvision is replaced; its masks do not use it.
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    ops = ModuleType("torchvision.ops")
    ops.StochasticDepth = object
    monkeypatch.setitem(sys.modules, "torchvision.ops", ops)
    draw = lightly_file("models.utils", monkeypatch).random_block_mask_image
    monkeypatch.setattr("random.uniform", random.Random(0).uniform)
    monkeypatch.setattr("random.randint", random.Random(1).randint)
    # Its count is a whole number, and its smallest area an option.
    theirs = [draw(GRID, num_masks=98, min_num_masks_per_block=16) for _ in range(DRAWS // 10)]
    _assert_alike(_block_masks(0.5), torch.stack(theirs).numpy())


def test_each_sample_has_its_own_ratio() -> None:
    ratios = torch.tensor([0.0, 0.5, 0.02, 1.0])
    share = block_mask(ratios, GRID).double().mean(1)
    assert share[0] == 0
    assert 0.4 < share[1] <= 0.5
    assert share[2] <= 0.02
    # A block is shorter than the grid, so that several are needed to cover it.
    assert 0.8 < share[3] <= 1


def test_the_seed_of_torch_decides() -> None:
    drawn: list[Tensor] = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        drawn.append(block_mask(torch.full((9,), 0.4), GRID))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_masks_have_a_shape_on_the_meta_device() -> None:
    with torch.device("meta"):
        blocks = block_mask(torch.full((3,), 0.4, device="cpu"), GRID)
        mask = random_mask(3, 196, 0.75)
    assert blocks.shape == mask.shape == (3, 196)
    assert (blocks.device.type, mask.device.type) == ("cpu", "meta")
    kept, masked = kept_and_masked(mask, 147)
    assert (kept.shape, masked.shape) == ((3, 49), (3, 147))


def test_kept_and_masked_tokens_can_be_put_back() -> None:
    mask = random_mask(4, 10, 0.6)
    kept, masked = kept_and_masked(mask, 6)
    assert not mask.gather(1, kept).any()
    assert mask.gather(1, masked).all()
    assert torch.equal(kept, kept.sort(1).values)
    tokens, filling = torch.randn(4, 10, 3, requires_grad=True), torch.randn(3, requires_grad=True)
    whole = scatter_tokens(gather_tokens(tokens, kept), kept, filling, 10)
    assert torch.equal(whole, torch.where(mask[..., None], filling, tokens))
    whole.sum().backward()
    assert tokens.grad is not None
    assert torch.equal(tokens.grad[..., 0], (~mask).float())
    assert filling.grad is not None
    assert filling.grad.tolist() == [24.0] * 3
