"""Augmentation keeps flow exact: it transforms both frames and the flow consistently."""

import colorsys

import numpy as np
import pytest
import torch

from midway.data.flow.augment import augment, fixed_crop
from midway.data.flow.pairs import FlowExample
from midway.data.synthetic.world import World, WorldConfig
from midway.errors import MidwayError
from midway.nn.images import warp

CROP = (48, 64)


@pytest.fixture(scope="module")
def example():
    world = World(WorldConfig(height=72, width=96, num_objects=3, object_speed=20), seed=3)
    motion = world.flow(0.0, 0.25)
    return FlowExample(
        source=world.frame(0.0).image,
        target=world.frame(0.25).image,
        flow=np.where(motion.occluded[..., None], np.inf, motion.flow).astype(np.float32),
        occluded=None,
    )


def grey(image):
    """Without colour and with unit contrast, as jitter changes both."""
    values = image.float().mean(0)
    return (values - values.mean()) / values.std()


def test_the_flow_of_every_distorted_pair_leads_to_its_target(example):
    dense = FlowExample(
        source=example.source,
        target=example.target,
        flow=np.where(np.isfinite(example.flow), example.flow, 0),
        occluded=None,
    )
    gains = []
    for number in range(40):
        for each in (example, dense):
            crop = augment(each, CROP, np.random.default_rng(number))
            assert crop.source.shape == crop.target.shape == (3, *CROP)
            assert crop.source.dtype == torch.uint8
            assert crop.flow.shape == (2, *CROP)
            assert crop.flow.dtype == torch.float32
            known = crop.flow.isfinite().all(0)
            source, target = grey(crop.source), grey(crop.target)
            moved, inside = warp(target[None, None], crop.flow[None])
            counts = known & inside[0]
            error = (moved[0, 0] - source).abs()[counts].mean()
            gains.append(float(error / (target - source).abs()[counts].mean()))
    assert np.median(gains) < 0.5
    assert max(gains) < 0.9


def test_the_same_generator_gives_the_same_crop_and_another_another(example):
    one, two, other = (augment(example, CROP, np.random.default_rng(n)) for n in (1, 1, 2))
    assert torch.equal(one.source, two.source)
    assert torch.equal(one.flow, two.flow)
    assert not torch.equal(one.source, other.source)


def test_frames_smaller_than_the_crop_are_enlarged_with_their_flow(example):
    crop = augment(example, (96, 128), np.random.default_rng(0))
    assert crop.source.shape == (3, 96, 128)
    assert crop.flow.isfinite().any()
    with pytest.raises(MidwayError, match=r"72x96 pixels: smaller than the crop of 96x128"):
        fixed_crop(example, (96, 128))


def test_scale_and_share_of_resized_pairs_follow_the_protocol():
    size = (200, 250)
    ramp = np.broadcast_to(np.float32(8), (*size, 2)).copy()
    blank = np.zeros((*size, 3), np.uint8)
    pair = FlowExample(source=blank, target=blank, flow=ramp, occluded=None)
    crops = [augment(pair, (32, 32), np.random.default_rng(n)).flow for n in range(300)]
    factors = torch.stack([crop[:, 0, 0].abs() / 8 for crop in crops])
    unchanged = (factors == 1).all(1).float().mean()
    assert unchanged == pytest.approx(0.2, abs=0.06)
    octaves = factors[(factors != 1).all(1)].log2()
    assert octaves.mean() == pytest.approx(0.15, abs=0.05)
    assert octaves.min() > -0.41
    assert octaves.max() < 0.71
    assert octaves.diff(dim=1).abs().max() < 0.41
    signs = torch.stack([crop[:, 0, 0].sign() for crop in crops])
    assert (signs[:, 0] < 0).float().mean() == pytest.approx(0.5, abs=0.08)
    assert (signs[:, 1] < 0).float().mean() == pytest.approx(0.1, abs=0.05)


def test_colours_are_mostly_jittered_alike_and_the_hue_as_colorsys_turns_it():
    image = np.broadcast_to(np.array([180, 120, 60], np.uint8), (32, 32, 3)).copy()
    flow = np.zeros((32, 32, 2), np.float32)
    pair = FlowExample(source=image, target=image, flow=flow, occluded=None)
    crops = [augment(pair, (32, 32), np.random.default_rng(n)) for n in range(200)]
    same = [torch.equal(crop.source, crop.target) for crop in crops]
    assert np.mean(same) == pytest.approx(0.8, abs=0.08)
    hues = [colorsys.rgb_to_hsv(*(crop.source[:, 0, 0] / 255).tolist())[0] for crop in crops]
    turns = (np.array(hues) - colorsys.rgb_to_hsv(180, 120, 60)[0] + 0.5) % 1 - 0.5
    assert np.abs(turns).max() < 0.18  # 0.159, and bytes are coarse
    assert np.abs(turns).max() > 0.12
    assert np.std(turns) == pytest.approx(2 * 0.159 / 12**0.5, rel=0.2)


def test_the_fixed_crop_is_the_undistorted_middle(example):
    crop = fixed_crop(example, CROP)
    middle = example.source[12:60, 16:80]
    np.testing.assert_array_equal(crop.source.permute(1, 2, 0).numpy(), middle)
    np.testing.assert_array_equal(crop.flow.permute(1, 2, 0).numpy(), example.flow[12:60, 16:80])
