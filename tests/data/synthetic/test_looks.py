"""Worlds that are dressed otherwise."""

import numpy as np

from midway.data.synthetic.world import World, WorldConfig

CONFIG = WorldConfig(height=48, width=64, num_objects=6)


def test_other_looks_move_cover_and_hide_as_the_first_did():
    plain, dressed = World(CONFIG, 3), World(CONFIG, 3, look_seed=1)
    np.testing.assert_array_equal(plain.frame(0.4).instances, dressed.frame(0.4).instances)
    before, after = plain.flow(0.4, 0.9), dressed.flow(0.4, 0.9)
    np.testing.assert_array_equal(before.flow, after.flow)
    np.testing.assert_array_equal(before.occluded, after.occluded)


def test_other_looks_share_no_more_colour_with_the_first_than_another_world_does():
    plain = World(CONFIG, 3).frame(0.4).image.astype(float)
    dressed = World(CONFIG, 3, look_seed=1).frame(0.4).image.astype(float)
    other = World(CONFIG, 4).frame(0.4).image.astype(float)
    assert np.abs(dressed - plain).mean() > 0.5 * np.abs(other - plain).mean() > 10


def test_a_look_seed_always_gives_the_same_looks_and_classes():
    images = [World(CONFIG, 3, look_seed=seed).frame(0.0) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(images[0].image, images[1].image)
    np.testing.assert_array_equal(images[0].classes, images[1].classes)
    assert (images[0].image != images[2].image).any()
    assert (images[0].classes != images[2].classes).any()
