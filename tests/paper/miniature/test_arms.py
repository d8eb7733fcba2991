"""Arms are compared alike: one encoder, as many frames a step, and as many trials."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from midway.methods.base import build_method
from midway.models.encoders.videomae import VideoMaeEncoder
from midway.paper.miniature.arms import ABLATIONS, ARMS, arms_by_name
from midway.paper.miniature.cells import all_cells
from midway.paper.miniature.folders import clips_config
from midway.paper.miniature.protocol import DATASETS, PROTOCOL

METHODS = [arm for arm in (*ARMS, *ABLATIONS) if arm.build is not None]


@pytest.mark.parametrize("arm", METHODS, ids=lambda arm: arm.name)
def test_every_method_trains_the_same_encoder(arm):
    with torch.device("meta"):
        method = build_method(arm.build(PROTOCOL, PROTOCOL.trials[0]))
    encoder, sizes = method.encoders["student"], PROTOCOL.encoder
    assert (encoder.width, encoder.depth, encoder.stride) == (
        sizes.width,
        sizes.depth,
        sizes.patch_size,
    )
    blocks = {name: p.numel() for name, p in encoder.named_parameters() if "blocks." in name}
    # Those of VideoMAE have no bias of the keys.
    missing = sizes.width * sizes.depth if isinstance(encoder, VideoMaeEncoder) else 0
    assert sum(blocks.values()) == sizes.depth * (12 * sizes.width**2 + 13 * sizes.width) - missing


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("arm", METHODS, ids=lambda arm: arm.name)
def test_every_method_sees_as_many_frames_a_step(arm, dataset):
    with torch.device("meta"):
        spec = build_method(arm.build(PROTOCOL, PROTOCOL.trials[0])).spec
    data = clips_config(PROTOCOL, dataset, arm, Path("folder"), spec.num_frames)
    assert data.batch_size * spec.num_frames == PROTOCOL.frames_per_step


def test_every_arm_has_as_many_trials_and_its_seeds():
    cells = all_cells(PROTOCOL, {})
    for arm in arms_by_name().values():
        trials = [c for c in cells if c.purpose == "choose" and c.arm == arm.chooser]
        assert len(trials) == (len(PROTOCOL.trials) if arm.is_trained else 0)
        assert arms_by_name()[arm.chooser].chooser == arm.chooser
        for dataset in DATASETS:
            reported = [
                c.seed
                for c in cells
                if (c.purpose, c.dataset, c.arm) == ("report", dataset, arm.name)
            ]
            assert reported == [*range(arm.num_seeds)]
    assert {"untrained", "dino", "mae", "croco", "midway"} == {
        arm.name for arm in ARMS if arm.num_seeds == 5
    }


def test_ablations_differ_and_change_the_dynamics_alone():
    arms = arms_by_name()
    builds = [arm.build for arm in (arms["midway"], *ABLATIONS, arms["base"])]
    full, *built = [build(PROTOCOL, PROTOCOL.trials[0]) for build in builds if build]
    assert len(built) == len(ABLATIONS) + 1
    dynamics = [method.network.dynamics for method in (full, *built)]
    assert len({*dynamics}) == len(dynamics)
    for method in built:
        network = replace(method.network, dynamics=full.network.dynamics)
        assert replace(method, network=network) == full
