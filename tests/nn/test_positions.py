import math

import pytest

from midway.errors import MidwayError
from midway.nn.positions import grid_sinusoids, line_sinusoids


def test_the_first_half_is_the_column_and_each_half_has_sines_before_cosines() -> None:
    rows, columns, dim = 3, 5, 16
    table = grid_sinusoids((rows, columns), dim)
    assert table.shape == (1, 1 + rows * columns, dim)
    assert not table[0, 0].any()
    quarter = dim // 4
    for row in range(rows):
        for column in range(columns):
            wanted = [
                wave(place / 10000 ** (2 * i / (dim / 2)))
                for place in (column, row)
                for wave in (math.sin, math.cos)
                for i in range(quarter)
            ]
            found = table[0, 1 + row * columns + column].tolist()
            assert found == pytest.approx(wanted, abs=1e-6)


def test_a_line_has_sines_on_even_channels_and_cosines_on_odd_ones() -> None:
    table = line_sinusoids(1568, 6)
    for place in (0, 1, 200, 1567):
        for channel in range(6):
            angle = place / 10000 ** (2 * (channel // 2) / 6)
            wanted = math.cos(angle) if channel % 2 else math.sin(angle)
            assert table[0, place, channel].item() == pytest.approx(wanted, abs=1e-6)


def test_widths_that_do_not_divide_are_refused() -> None:
    with pytest.raises(MidwayError, match=r"width 6: .*multiple of 4"):
        grid_sinusoids((2, 2), 6)
    with pytest.raises(MidwayError, match=r"width 5: .*multiple of 2"):
        line_sinusoids(4, 5)
