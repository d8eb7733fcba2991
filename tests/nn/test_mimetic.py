import math

import pytest
import torch

from midway.nn.blocks import Attention
from midway.nn.embed import PatchEmbed
from midway.nn.mimetic import (
    AMPLITUDE,
    SPREAD,
    sincos_positions,
    start_carrying,
    start_comparing,
    start_whitened,
)


def test_products_of_positions_are_a_slow_sum_of_cosines_of_their_distance() -> None:
    dim, grid = 24, (3, 5)
    table = sincos_positions(grid, dim)[0]
    assert table.shape == (16, dim)
    assert not table[0].any()
    places = [(row, column) for row in range(3) for column in range(5)]
    frequencies = [math.pi / 2 * 0.01 ** (number / 6) for number in range(6)]
    for i, (row, column) in enumerate(places):
        for j, (other_row, other_column) in enumerate(places):
            apart = (row - other_row, column - other_column)
            slow = sum(math.cos(f * d) for d in apart for f in frequencies)
            product = (table[1 + i] @ table[1 + j]).item()
            assert math.isclose(product, AMPLITUDE**2 * slow, abs_tol=1e-4)


def test_a_token_reads_itself_and_its_like_and_nothing_else() -> None:
    torch.manual_seed(0)
    attention = Attention(96, 3, qkv_bias=False)
    start_comparing(attention)
    start_carrying(attention)
    tokens = torch.nn.functional.layer_norm(torch.randn(1, 8, 96), (96,))
    tokens[0, 5] = tokens[0, 2]
    mixed = attention(tokens)[0]
    # Value and output projection undo each other but for the heads' own softmax weights.
    likeness = torch.nn.functional.cosine_similarity(mixed[:, None], tokens[0][None], dim=-1)
    assert (likeness.diagonal() > 0.9).all()
    assert torch.allclose(mixed[2], mixed[5], atol=1e-5)


def _like_photographs(num_images: int, side: int) -> torch.Tensor:
    """Noise whose power falls with the square of the frequency, mostly in brightness."""
    across, down = torch.fft.rfftfreq(side), torch.fft.fftfreq(side)[:, None]
    amplitude = (across**2 + down**2).clamp(min=1 / side**2).rsqrt()
    noise = torch.randn(num_images, 3, side, side) * torch.tensor([1.0, 0.3, 0.1])[:, None, None]
    images = torch.fft.irfft2(torch.fft.rfft2(noise) * amplitude, s=(side, side))
    axes = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]])
    images = torch.einsum("nayx,ac->ncyx", images, axes / axes.norm(dim=1, keepdim=True))
    return images / images.std()


def _effective_rank(tokens: torch.Tensor) -> float:
    spectrum = torch.linalg.eigvalsh(torch.cov(tokens.flatten(0, 1).T))
    return (spectrum.sum() ** 2 / (spectrum**2).sum()).item()


@torch.no_grad()
def test_whitened_patches_keep_several_times_as_many_directions_as_random_ones() -> None:
    torch.manual_seed(0)
    images, patches = _like_photographs(32, 64), PatchEmbed(8, 96)
    torch.nn.init.trunc_normal_(patches.proj.weight, std=0.04)
    random = _effective_rank(patches(images))
    start_whitened(patches.proj)
    tokens = patches(images)
    assert _effective_rank(tokens) > 3 * random
    assert 0.5 * SPREAD < tokens.std() < 2 * SPREAD


@torch.no_grad()
@pytest.mark.parametrize(("side", "width"), [(8, 96), (4, 96), (16, 24)])
def test_whitened_filters_are_distinct_at_any_size(side: int, width: int) -> None:
    patches = PatchEmbed(side, width)
    start_whitened(patches.proj)
    rank = torch.linalg.matrix_rank(patches.proj.weight.flatten(1)).item()
    assert rank == min(width, 3 * side**2)
