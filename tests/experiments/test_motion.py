"""Presets for motion: still frames whose crops move by whole patches, then moving frames."""

from dataclasses import replace

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


def test_moving_goes_on_from_still(tmp_path, video) -> None:
    runs = {}
    for preset in (motion.still(), motion.moving()):
        start = runs.get("motion.still", "")
        run = replace(
            preset,
            method=replace(_method(preset), start=str(start)),
            data=replace(
                preset.data, root=str(video), num_workers=0, batch_size=1, draws_per_clip=1
            ),
            optim=replace(preset.optim, warmup_steps=0),
            # Fresh weights of another seed would differ.
            run=replace(
                preset.run, folder=tmp_path / preset.run.folder.name, steps=1, seed=len(runs)
            ),
        )
        train(run)
        runs[preset.run.folder.name] = run.run.folder
    assert _method(motion.moving()).start == str(motion.still().run.folder)
    before, after = (load(folder) for folder in runs.values())
    # The encoder is frozen, the dynamics are not.
    assert _equal(before.encoder, after.encoder)
    moved = [
        not _equal(getattr(before.dynamics, part), getattr(after.dynamics, part))
        for part in ("midway_path", "forward_models")
    ]
    assert all(moved)


def _equal(one: nn.Module, two: nn.Module) -> bool:
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    return all(first.equal(second) for first, second in pairs)
