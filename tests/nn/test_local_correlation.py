"""Local correlation: matches of a patch near its place, from the definition and where it went."""

import pytest
import torch
from torch.nn import functional as F

from midway.nn.local_correlation import TEMPERATURE, LocalCorrelation, window

GRID = (4, 5)


def test_the_window_is_clipped_at_the_grid() -> None:
    places, is_inside = window(GRID, 1, torch.device("cpu"))
    assert places.shape == is_inside.shape == (20, 9)
    assert places[6].tolist() == [0, 1, 2, 5, 6, 7, 10, 11, 12]  # row 1, column 1
    assert is_inside[6].all()
    assert places[0][is_inside[0]].tolist() == [0, 1, 5, 6]
    assert places[19][is_inside[19]].tolist() == [13, 14, 18, 19]


def test_probabilities_are_those_of_a_loop_over_patches() -> None:
    torch.manual_seed(0)
    correlation = LocalCorrelation(1, 9)
    with torch.no_grad():
        correlation.up.weight.copy_(torch.eye(9))
        correlation.up.bias.zero_()
    source, target = torch.randn(2, 3, 21, 7)
    found = correlation(source, target, GRID)
    assert (found[:, 0] == 0).all()
    for sample in range(3):
        mean = torch.cat([source[sample, 1:], target[sample, 1:]]).mean(0)
        for row in range(4):
            for column in range(5):
                here = source[sample, 1 + row * 5 + column] - mean
                wanted = torch.full((3, 3), -torch.inf)
                for y in range(max(0, row - 1), min(4, row + 2)):
                    for x in range(max(0, column - 1), min(5, column + 2)):
                        there = target[sample, 1 + y * 5 + x] - mean
                        cosine = F.cosine_similarity(here, there, dim=0)
                        wanted[y - row + 1, x - column + 1] = cosine / TEMPERATURE
                at = found[sample, 1 + row * 5 + column]
                torch.testing.assert_close(at, wanted.flatten().softmax(0))


@pytest.mark.parametrize(("right", "down"), [(1, 0), (-2, 1), (0, -1)])
def test_shifted_patches_are_matched_where_they_went(right: int, down: int) -> None:
    torch.manual_seed(1)
    patches = torch.randn(1, 6, 6, 32)
    moved = patches.roll((down, right), dims=(1, 2))
    frames = [F.pad(frame.flatten(1, 2), (0, 0, 1, 0)) for frame in (patches, moved)]
    correlation = LocalCorrelation(2, 25)
    with torch.no_grad():
        correlation.up.weight.copy_(torch.eye(25))
        correlation.up.bias.zero_()
    matches = correlation(*frames, (6, 6))[0, 1:].view(6, 6, 5, 5)
    # Patches two or more from the edge stay in the frame.
    assert (matches[2:4, 2:4, 2 + down, 2 + right] > 0.9).all()


def test_features_get_no_gradient() -> None:
    source = torch.randn(1, 21, 7, requires_grad=True)
    correlation = LocalCorrelation(1, 4)
    correlation(source, source, GRID).square().sum().backward()
    assert source.grad is None
    assert correlation.up.weight.grad is not None
