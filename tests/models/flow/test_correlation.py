"""Matching finds what has moved by a known amount: in features, through the dynamics, in pixels."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from midway.data.synthetic.world import World, WorldConfig
from midway.errors import MidwayError
from midway.models.flow.correlation import dynamics_flow, feature_flow, match_maps
from midway.models.flow.pixels import pixel_flow
from midway.nn.images import warp
from tests.models.networks import random_network


def smooth_features(u, v, size=(12, 14)):
    """Smooth random features, moved by (u, v) cells."""
    generator = torch.Generator().manual_seed(0)
    phases = 6.3 * torch.rand(64, generator=generator)
    waves = 1.2 * torch.randn(2, 64, generator=generator)
    rows, columns = torch.meshgrid(*(torch.arange(n).float() for n in size), indexing="ij")
    angle = (columns - u)[..., None] * waves[0] + (rows - v)[..., None] * waves[1] + phases
    return angle.cos().permute(2, 0, 1)[None]


@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.0, -2.0), (1.5, 2.25)])
def test_features_that_moved_are_found_finer_than_the_grid(shift):
    flow = match_maps(smooth_features(0, 0), smooth_features(*shift), radius=4, temperature=0.1)
    assert flow.shape == (1, 2, 12, 14)
    middle = flow[0, :, 4:-4, 4:-4]
    error = (middle - torch.tensor(shift)[:, None, None]).abs()
    assert error.max() < 0.35
    assert error.mean() < 0.2


def test_nothing_is_found_outside_the_image_and_equals_stay():
    features = torch.ones(1, 3, 5, 5)
    flow = match_maps(features, features, radius=3, reluctance=0.01)
    assert flow.abs().max() < 0.6  # the border has neighbours on one side only
    assert (flow[:, :, 1:-1, 1:-1].abs() < 1e-5).all()
    rows = torch.arange(5.0)[:, None] + flow[0, 1]
    assert rows.min() >= 0
    assert rows.max() <= 4


def test_the_average_over_the_window_finds_what_is_distinct_and_shrinks_what_is_not():
    def found(features, moved, **options):
        flow = match_maps(features, moved, radius=2, temperature=0.05, reluctance=0.2, **options)
        return flow[0, :, 3:-3, 3:-3].mean((1, 2))

    torch.manual_seed(0)
    distinct = torch.randn(1, 256, 12, 12)
    moved = distinct.roll(1, dims=3)
    for average in ("peak", "window"):
        assert (found(distinct, moved, average=average) - torch.tensor([1.0, 0.0])).norm() < 0.1
    # Every cell of the target is as similar as any other, up to noise: peaks are at random.
    plain = torch.ones(1, 64, 12, 12)
    noisy = plain + 0.1 * torch.randn(plain.shape)
    assert match_maps(plain, noisy, radius=2).norm(dim=1)[0, 3:-3, 3:-3].mean() > 1
    flow = match_maps(plain, noisy, radius=2, temperature=0.05, reluctance=0.2, average="window")
    assert flow.norm(dim=1)[0, 3:-3, 3:-3].mean() < 0.2


def test_the_memory_of_matching_does_not_grow_with_the_offsets():
    features = torch.randn(1, 76, 30, 40)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        match_maps(features, features, radius=3)
    allocated_bytes = sum(max(event.self_cpu_memory_usage, 0) for event in seen.events() or ())
    # All that is ever allocated: a product for each of the 49 offsets would be 49 times this.
    assert allocated_bytes < 20 * features.nbytes


def test_equal_frames_do_not_move_by_their_features():
    network = random_network()
    frame = torch.randn(2, 3, 32, 48)
    flow = feature_flow(network.encoder, frame, frame, level=2, radius=2)
    assert flow.shape == (2, 2, 32, 48)
    assert flow.abs().median() < 1


def test_the_dynamics_are_run_from_target_to_source():
    network = random_network()
    seen = []
    original = network.encode
    network.encode = lambda one, two: seen.append((one, two)) or original(one, two)
    source, target = torch.randn(2, 1, 3, 32, 32)
    flow = dynamics_flow(network, source, target, level=2, radius=2)
    assert flow.shape == (1, 2, 32, 32)
    assert seen[0][0] is target
    assert seen[0][1] is source
    with pytest.raises(MidwayError, match="the dynamics predict levels 1, 2, 3"):
        dynamics_flow(network, source, target, level=4, radius=2)


def test_pixels_alone_explain_the_motion_of_a_synthetic_world_better_than_none():
    world = World(WorldConfig(num_objects=4, object_speed=20), seed=1)
    source, target = (
        torch.from_numpy(world.frame(seconds).image).permute(2, 0, 1) / 255 for seconds in (0, 0.4)
    )
    truth = world.flow(0, 0.4)
    flow = pixel_flow(source, target)
    seen = torch.from_numpy(~truth.occluded)
    error = (flow.permute(1, 2, 0) - torch.from_numpy(truth.flow)).norm(dim=-1)[seen].mean()
    assert error < 0.5 * torch.from_numpy(truth.flow).norm(dim=-1)[seen].mean()
    warped, _ = warp(target[None], flow[None])
    assert (warped[0] - source).abs().mean() < 0.6 * (target - source).abs().mean()


def test_flat_places_do_not_move_up_to_the_very_border():
    frame = torch.full((3, 40, 60), 0.5)
    frame[:, 15:25, 20:40] = torch.rand(3, 10, 20, generator=torch.Generator().manual_seed(0))
    assert pixel_flow(frame, frame).abs().max() < 0.05
