"""Sources of flow for a method: both directions, scale, recorded flow, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from midway.data.synthetic.world import World, WorldConfig
from midway.errors import MidwayError
from midway.models.flow.external import FlowConfig, RaftFlow, external_flow
from midway.models.flow.pixels import pixel_flow
from midway.models.flow.raft import Raft

WORLD = WorldConfig(height=64, width=96, object_speed=15.0, camera_speed=10.0)


def frames_of(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two frames (2, 1, 3, height, width) and the true flow both ways."""
    world = World(WORLD, seed)
    images = [world.frame(t).image for t in (0.0, 0.25)]
    flows = [world.flow(0.0, 0.25).flow, world.flow(0.25, 0.0).flow]
    frames = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)[:, None] / 255
    return frames, torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2)[:, None]


def test_matching_of_pixels_finds_the_motion_of_worlds_in_both_directions():
    both = [frames_of(seed) for seed in (1, 2, 3)]
    frames, truth = (torch.cat(parts, dim=1) for parts in zip(*both, strict=True))
    flow = external_flow(FlowConfig(source="pixels"))(frames, seconds=torch.zeros(2, 3), signals={})
    assert flow.shape == truth.shape
    error, still = ((x - truth).norm(dim=2).mean((1, 2, 3)) for x in (flow, 0 * flow))
    assert (error < 0.6 * still).all()


def test_pairs_of_a_batch_are_matched_as_alone():
    frames = torch.rand(2, 3, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    together = pixel_flow(*frames)
    for number, flow in enumerate(together):
        torch.testing.assert_close(flow, pixel_flow(*frames[:, number]), rtol=0, atol=1e-4)


def test_no_motion_is_none():
    flow = external_flow(FlowConfig(source="none"))
    found = flow(torch.rand(2, 3, 3, 8, 16), seconds=torch.zeros(2, 3), signals={})
    assert torch.equal(found, torch.zeros(2, 3, 2, 8, 16))


def test_recorded_flow_is_scaled_to_the_frames_and_unknown_across_another_time():
    config = FlowConfig(source="recorded", recorded_size=(4, 6))
    assert config.signals == {"flow": (2, 2, 4, 6), "flow_seconds": ()}
    recorded = torch.zeros(2, 3, 2, 2, 4, 6)  # (frame, batch, direction, axis, rows, columns)
    recorded[0, :, 0, 0] = 1.0
    recorded[1, :, 1, 1] = -2.0
    recorded[0, 1, 0, :, 2, 3] = 1e9
    # What the other entries contain is of other frames.
    recorded[0, :, 1], recorded[1, :, 0] = 77.0, 77.0
    signals = {"flow": recorded, "flow_seconds": torch.full((2, 3), 0.5)}
    seconds = torch.tensor([[1.0, 2.0, 3.0], [1.5, 2.5, 3.4]])
    frames = torch.zeros(2, 3, 3, 8, 18)
    flow = external_flow(config)(frames, seconds=seconds, signals=signals)
    assert torch.equal(flow[0, 0, 0], torch.full((8, 18), 3.0))
    assert torch.equal(flow[1, 0, 1], torch.full((8, 18), -4.0))
    assert torch.equal(flow[1, 0, 0], torch.zeros(8, 18))
    # The cell of the unknown vector, and what is interpolated from it.
    unknown = ~flow[0, 1].isfinite().all(0)
    assert unknown[4:6, 9:12].all()
    assert not unknown[:2].any()
    assert not unknown[:, :6].any()
    assert not flow[:, 2].isfinite().any()


def test_raft_sees_images_from_minus_one_to_one_and_both_orders(tmp_path: Path):
    torch.manual_seed(0)
    torch.save(Raft().state_dict(), tmp_path / "raft.pth")
    config = FlowConfig(weights=str(tmp_path / "raft.pth"), iterations=2)
    source = external_flow(config)
    assert isinstance(source, RaftFlow)
    frames = torch.rand(2, 2, 3, 64, 72)
    flow = source(frames, seconds=torch.zeros(2, 2), signals={})
    first, second = 2 * frames - 1
    with torch.no_grad():
        expected = torch.stack([source.network(first, second), source.network(second, first)])
    torch.testing.assert_close(flow, expected, rtol=1e-3, atol=1e-3)
    assert not flow.requires_grad
    # As in PooDLe's code: flow then depends on the other samples of the batch.
    theirs = external_flow(replace(config, batch_statistics=True))
    alone = theirs(frames[:, :1], seconds=torch.zeros(2, 1), signals={})
    assert (theirs(frames, seconds=torch.zeros(2, 2), signals={})[:, :1] - alone).abs().max() > 1e-3


def test_sources_that_cannot_be_are_refused():
    with pytest.raises(MidwayError, match=r"flow\.weights is empty; give raft-things\.pth"):
        external_flow(FlowConfig())
    with pytest.raises(MidwayError, match="only RAFT has weights"):
        FlowConfig(source="pixels", weights="raft.pth")
    with pytest.raises(MidwayError, match="iterations = 0"):
        FlowConfig(iterations=0)
    with pytest.raises(MidwayError, match="give two sides of 1 or more"):
        FlowConfig(recorded_size=(0, 4))
