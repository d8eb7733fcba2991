import math

import torch

from midway.nn.blocks import Attention
from midway.nn.mimetic import AMPLITUDE, sincos_positions, start_carrying, start_comparing


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
