"""Rotary positions against complex numbers, and what attention may depend on."""

import cmath

import torch
from torch.testing import assert_close

from midway.nn.rope import (
    RotaryAttention,
    RotaryBlock,
    RotaryCrossAttention,
    RotaryCrossBlock,
    grid_positions,
    rotate,
    rotation,
)

HEAD_DIM = 16


def slowly_rotated(x: list[float], row: int, column: int) -> list[float]:
    """Each pair of channels is a complex number, turned by its position times its frequency."""
    half, quarter = len(x) // 2, len(x) // 4
    turned = [0.0] * len(x)
    for start, place in ((0, row), (half, column)):
        for i in range(quarter):
            a, b = start + i, start + i + quarter
            frequency = 100 ** (-2 * i / half)
            number = complex(x[a], x[b]) * cmath.exp(1j * place * frequency)
            turned[a], turned[b] = number.real, number.imag
    return turned


def test_a_rotation_equals_that_of_complex_numbers() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, HEAD_DIM, dtype=torch.float64)
    positions = torch.randint(0, 40, (2, 5, 2))
    found = rotate(x, rotation(positions, HEAD_DIM))
    for b in range(2):
        for head in range(3):
            for token in range(5):
                row, column = positions[b, token].tolist()
                wanted = slowly_rotated(x[b, head, token].tolist(), row, column)
                assert_close(
                    found[b, head, token], torch.tensor(wanted).double(), atol=1e-5, rtol=0
                )


def test_positions_count_rows_first() -> None:
    assert grid_positions((2, 3), torch.device("cpu"))[0].tolist() == [
        [row, column] for row in range(2) for column in range(3)
    ]


def test_a_product_of_query_and_key_depends_on_their_offset_alone() -> None:
    torch.manual_seed(1)
    q, k = torch.randn(2, 1, 1, 1, HEAD_DIM)

    def product(query_at: tuple[int, int], key_at: tuple[int, int]) -> float:
        turned = [
            rotate(x, rotation(torch.tensor([[place]]), HEAD_DIM))
            for x, place in ((q, query_at), (k, key_at))
        ]
        return (turned[0] * turned[1]).sum().item()

    here = product((1, 2), (4, 9))
    assert abs(product((31, 12), (34, 19)) - here) < 1e-4
    assert abs(product((4, 9), (1, 2)) - here) > 1e-2
    assert abs(product((2, 1), (9, 4)) - here) > 1e-2  # rows and columns differ


def test_attention_equals_softmax_written_out() -> None:
    torch.manual_seed(2)
    heads, dim = 2, 2 * HEAD_DIM
    attention, cross = RotaryAttention(dim, heads), RotaryCrossAttention(dim, heads)
    x, memory = torch.randn(3, 6, dim), torch.randn(3, 4, dim)
    by = rotation(torch.randint(0, 9, (3, 6, 2)), HEAD_DIM)
    memory_by = rotation(torch.randint(0, 9, (1, 4, 2)), HEAD_DIM)

    def split(tokens: torch.Tensor) -> torch.Tensor:
        return tokens.reshape(3, -1, heads, HEAD_DIM).transpose(1, 2)

    def mixed(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        weights = (q @ k.transpose(-2, -1) / HEAD_DIM**0.5).softmax(-1)
        return (weights @ v).transpose(1, 2).reshape(3, -1, dim)

    q, k, v = (split(part) for part in attention.qkv(x).chunk(3, dim=-1))
    assert_close(attention(x, by), attention.proj(mixed(rotate(q, by), rotate(k, by), v)))
    q, k, v = split(cross.projq(x)), split(cross.projk(memory)), split(cross.projv(memory))
    wanted = cross.proj(mixed(rotate(q, by), rotate(k, memory_by), v))
    assert_close(cross(x, memory, by, memory_by), wanted)


def test_a_decoder_block_reads_the_memory_and_every_parameter_learns() -> None:
    torch.manual_seed(3)
    block = RotaryCrossBlock(2 * HEAD_DIM, 2, norm_eps=1e-6)
    x, memory = torch.randn(2, 4, 2 * HEAD_DIM), torch.randn(2, 4, 2 * HEAD_DIM)
    by = rotation(grid_positions((2, 2), x.device), HEAD_DIM)
    out = block(x, memory, by, by)
    assert not torch.equal(out, block(x, memory.roll(1, dims=1), by, by))
    out.square().sum().backward()
    assert all(p.grad is not None for p in block.parameters())


def test_a_block_keeps_half_precision_and_drops_whole_branches() -> None:
    torch.manual_seed(4)
    block = RotaryBlock(2 * HEAD_DIM, 2, norm_eps=1e-6, drop_path=0.5)
    x = torch.randn(64, 4, 2 * HEAD_DIM)
    by = rotation(grid_positions((2, 2), x.device), HEAD_DIM)
    unchanged = (block(x, by) == x).flatten(1).all(1)
    assert 4 < unchanged.sum() < 32  # both branches of a quarter of the samples
    q = torch.randn(1, 2, 4, HEAD_DIM, dtype=torch.bfloat16)
    assert rotate(q, by).dtype == torch.bfloat16
