"""Tiles: how many, where, and that merging them invents nothing."""

import itertools

import pytest
import torch

from midway.errors import MidwayError
from midway.models.flow.tiles import TileConfig, predict_tiled, tile_offsets

TILES = TileConfig(size=(16, 24), overlap=0.6, batch_size=4)


@pytest.mark.parametrize(
    ("size", "overlap", "count"),
    [
        ((436, 1024), 0.9, 90),
        ((436, 1024), 0.7, 21),
        ((540, 960), 0.9, 136),
        ((540, 960), 0.7, 24),
        ((320, 384), 0.9, 1),
    ],
)
def test_images_are_cut_into_as_many_tiles_as_published(size, overlap, count):
    tops, lefts = (tile_offsets(n, t, overlap) for n, t in zip(size, (320, 384), strict=True))
    assert len(tops) * len(lefts) == count
    for offsets, length, tile in ((tops, size[0], 320), (lefts, size[1], 384)):
        assert offsets[0] == 0
        assert offsets[-1] == length - tile
        steps = [b - a for a, b in itertools.pairwise(offsets)]
        # Offsets are rounded to whole pixels, so a step may be one longer.
        assert all(step <= (1 - overlap) * tile + 1 for step in steps)


def places(height, width):
    """Frames whose channels are the column and row of each pixel."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows, columns + rows]).float()


def with_uncertainty(flow):
    torch.manual_seed(0)
    return torch.cat([flow, 20 * torch.randn(len(flow), 1, *flow.shape[2:])], dim=1)


def test_a_constant_field_is_exact_whatever_the_confidence():
    frame = torch.zeros(3, 45, 61)
    constant = torch.tensor([3.5, -120.25])[:, None, None]

    def network(source, target):
        return with_uncertainty(constant.expand(len(source), 2, 16, 24))

    flow = predict_tiled(network, frame, frame, TILES)
    torch.testing.assert_close(flow, constant.expand(2, 45, 61), rtol=1e-6, atol=1e-5)


def test_what_a_pixel_sees_stays_at_its_place():
    frame = places(45, 61)
    flow = predict_tiled(lambda s, t: with_uncertainty(s[:, :2]), frame, 2 * frame, TILES)
    torch.testing.assert_close(flow, frame[:2])
    doubled = predict_tiled(lambda s, t: with_uncertainty(t[:, :2]), frame, 2 * frame, TILES)
    torch.testing.assert_close(doubled, 2 * frame[:2])


def test_a_ramp_within_each_tile_merges_without_a_step():
    """Tiles that disagree: each sees a ramp from its own left border."""
    ramp = torch.arange(24.0).expand(16, 24)

    def network(source, target):
        c = 4 * (ramp - 11.5).abs()  # least sure at the borders
        return torch.stack([ramp, -ramp, c]).expand(len(source), -1, -1, -1)

    frame = torch.zeros(3, 45, 61)
    flow = predict_tiled(network, frame, frame, TILES)
    jumps = flow.diff(dim=2).abs()
    assert flow.min() > -23.01
    assert flow.max() < 23.01
    # Where a tile ends, an average without confidence would jump by up to a third of the ramp.
    assert jumps.max() < 3


def test_confident_pixels_win():
    calls = []

    def network(source, target):
        first = len(calls)
        calls.append(len(source))
        value = torch.arange(first, first + len(source)).float()[:, None, None, None]
        output = value.expand(-1, 3, 16, 24).clone()
        output[:, 2] = torch.where(value[:, 0] == 0, -50.0, 50.0)  # the first tile is sure
        return output

    tiles = TileConfig(size=(16, 24), overlap=0.5, batch_size=1)
    flow = predict_tiled(network, torch.zeros(3, 16, 36), torch.zeros(3, 16, 36), tiles)
    assert len(calls) == 2
    assert flow[:, :, :24].abs().max() < 1e-6
    assert (flow[:, :, 24:] == 1).all()


@pytest.mark.parametrize(
    ("size", "enlarged"),
    [((10, 61), (16, 98)), ((45, 12), (90, 24)), ((8, 12), (16, 24)), ((7, 9), (19, 24))],
)
def test_a_small_image_is_enlarged_in_its_shape_and_its_flow_scaled_back(size, enlarged):
    seen = []

    def network(source, target):
        seen.append(source.shape[2:])
        height, width = enlarged
        flow = torch.tensor([width / size[1], height / size[0]])[:, None, None]
        return with_uncertainty(flow.expand(len(source), 2, 16, 24))

    flow = predict_tiled(network, torch.rand(3, *size), torch.rand(3, *size), TILES)
    assert set(seen) == {(16, 24)}
    torch.testing.assert_close(flow, torch.ones(2, *size))


def test_tiles_come_in_batches_of_the_given_size():
    sizes = []

    def network(source, target):
        sizes.append(len(source))
        return torch.zeros(len(source), 3, 16, 24)

    predict_tiled(network, torch.zeros(3, 45, 61), torch.zeros(3, 45, 61), TILES)
    count = len(tile_offsets(45, 16, 0.6)) * len(tile_offsets(61, 24, 0.6))
    assert sum(sizes) == count
    assert sizes[:-1] == [4] * (len(sizes) - 1)


def test_frames_of_different_sizes_and_senseless_tiles_are_refused():
    with pytest.raises(MidwayError, match="45x61 and 45x60 pixels"):
        predict_tiled(lambda s, t: s, torch.zeros(3, 45, 61), torch.zeros(3, 45, 60), TILES)
    with pytest.raises(MidwayError, match=r"overlap 1\.0"):
        TileConfig(overlap=1.0)
