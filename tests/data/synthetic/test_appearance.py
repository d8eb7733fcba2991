"""Worlds with re-sampled appearance."""

import numpy as np

from midway.data.synthetic.world import World, WorldConfig

CONFIG = WorldConfig(height=48, width=64, num_objects=6)


def test_another_appearance_keeps_masks_flow_and_occlusion():
    plain, changed = World(CONFIG, 3), World(CONFIG, 3, look_seed=1)
    np.testing.assert_array_equal(plain.frame(0.4).instances, changed.frame(0.4).instances)
    before, after = plain.flow(0.4, 0.9), changed.flow(0.4, 0.9)
    np.testing.assert_array_equal(before.flow, after.flow)
    np.testing.assert_array_equal(before.occluded, after.occluded)


def test_another_appearance_changes_the_colours_about_as_much_as_another_world():
    plain = World(CONFIG, 3).frame(0.4).image.astype(float)
    changed = World(CONFIG, 3, look_seed=1).frame(0.4).image.astype(float)
    other = World(CONFIG, 4).frame(0.4).image.astype(float)
    assert np.abs(changed - plain).mean() > 0.5 * np.abs(other - plain).mean() > 10


def test_a_look_seed_determines_appearance_and_classes():
    images = [World(CONFIG, 3, look_seed=seed).frame(0.0) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(images[0].image, images[1].image)
    np.testing.assert_array_equal(images[0].classes, images[1].classes)
    assert (images[0].image != images[2].image).any()
    assert (images[0].classes != images[2].classes).any()
