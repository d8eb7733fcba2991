"""The small world of textures and the readout that is made for it."""

import numpy as np

from midway.data.synthetic.world import CLASS_NAMES, World
from midway.evals.readouts.segmentation_protocols import PROTOCOLS
from midway.experiments.synthetic import WORLD, midway_tiny


def test_no_two_objects_of_a_world_are_of_one_class():
    assert WORLD.num_objects == len(CLASS_NAMES) - 1
    for seed in range(5):
        frame = World(WORLD, seed).frame(0.0)
        seen = set(zip(frame.instances.flat, frame.classes.flat, strict=True))
        assert len(seen) == len(np.unique(frame.classes))


def test_the_readout_takes_frames_and_crops_as_large_as_training_does():
    data = PROTOCOLS["synthetic-linear"]().data
    assert data.scale == (WORLD.width, WORLD.height)
    assert data.test_scale == "native"
    assert data.crop == midway_tiny().method.views.motion_size
