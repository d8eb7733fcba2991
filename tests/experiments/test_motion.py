"""Presets for motion: still frames in displaced crops, moving frames, then the encoder too."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from midway.data.synthetic.photo_world import PhotoWorldConfig
from midway.data.video.writer import writing_video
from midway.data.views.spec import draw_views
from midway.experiments import motion
from midway.experiments.base import Experiment, train
from midway.methods.midway import MidwayConfig
from midway.models.weights.load import load


def _method(experiment: Experiment) -> MidwayConfig:
    assert isinstance(experiment.method, MidwayConfig)
    return experiment.method


def test_crops_of_a_still_frame_are_at_their_own_resolution_and_two_patches_apart_at_most() -> None:
    spec = _method(motion.still()).views.spec()
    apart = set()
    for seed in range(300):
        drawn = draw_views(spec, motion.HEIGHT, motion.HEIGHT, np.random.default_rng(seed))
        source, target = drawn.boxes[spec.slices["motion"]]
        assert (source[2:] == motion.CROP).all()
        assert (target[2:] == motion.CROP).all()
        apart.update(((target - source)[:2] / 8).tolist())
    assert apart == {-2, -1, 0, 1, 2}


def test_moving_frames_are_seen_in_one_crop_at_its_own_resolution() -> None:
    spec = _method(motion.moving()).views.spec()
    drawn = draw_views(spec, motion.HEIGHT, motion.HEIGHT, np.random.default_rng(0))
    source, target = drawn.boxes[spec.slices["motion"]]
    assert (source == target).all()
    assert (source[2:] == motion.CROP).all()


@pytest.fixture
def video(tmp_path):
    """One world of photographs."""
    world = PhotoWorldConfig(height=128, width=128, num_frames=8, fps=8.0).build(0)
    (tmp_path / "videos").mkdir()
    with writing_video(tmp_path / "videos/world.mp4", 8) as write:
        for number in range(8):
            write(world.frame(number / 8).image)
    return tmp_path / "videos"


def test_each_stage_goes_on_from_the_one_before(tmp_path, video) -> None:
    stages = {"motion.still": motion.still, "motion.moving": motion.moving}
    stages["motion.joined"] = motion.joined
    folder, networks = "", []
    for number, (name, stage) in enumerate(stages.items()):
        preset = stage()
        assert preset.run.folder == Path("runs") / name
        run = replace(
            preset,
            method=replace(_method(preset), start=str(folder)),
            data=replace(
                preset.data, root=str(video), num_workers=0, batch_size=1, draws_per_clip=1
            ),
            optim=replace(preset.optim, warmup_steps=0),
            # Fresh weights of another seed would differ.
            run=replace(preset.run, folder=tmp_path / name, steps=1, seed=number),
        )
        train(run)
        folder = run.run.folder
        networks.append(load(folder))
    assert _method(motion.moving()).start == str(motion.still().run.folder)
    assert _method(motion.joined()).start == str(motion.moving().run.folder)
    still, moving, joined = networks
    # The encoder is frozen in the first two, the dynamics are not.
    assert _equal(still.encoder, moving.encoder)
    for part in ("midway_path", "forward_models"):
        assert not _equal(getattr(still.dynamics, part), getattr(moving.dynamics, part))
    # In the last stage the encoder learns, and the teacher follows it except for its head.
    assert not _equal(moving.encoder, joined.encoder)
    assert not _equal(moving.teacher.encoder, joined.teacher.encoder)
    assert _equal(moving.teacher.head, joined.teacher.head)


def _equal(one: nn.Module, two: nn.Module) -> bool:
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    return all(first.equal(second) for first, second in pairs)
