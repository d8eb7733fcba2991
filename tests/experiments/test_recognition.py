"""Recognition world: seeds that never meet, and runs on its videos."""

from itertools import combinations

from midway.experiments.recognition import (
    LABELLED,
    NUM_VIDEOS,
    PROBE_WORLDS,
    WORLD,
    dino_tiny,
    midway_tiny,
)


def test_worlds_to_develop_choose_report_and_train_have_different_seeds():
    videos = range(100 * NUM_VIDEOS)  # of a hundred runs
    ranges = [videos, LABELLED, *(part for parts in PROBE_WORLDS.values() for part in parts)]
    assert {*PROBE_WORLDS} == {"develop", "choose", "report"}
    for first, second in combinations(ranges, 2):
        assert not {*first} & {*second}


def test_crops_are_as_large_as_the_networks_images():
    for experiment, size in (
        (midway_tiny(), midway_tiny().method.views.motion_size),
        (dino_tiny(), dino_tiny().method.views.global_size),
    ):
        method = experiment.method
        encoder = getattr(method, "network", method).encoder
        assert encoder.image_size == size
        assert encoder.sincos_positions
        assert WORLD.height % encoder.patch_size == WORLD.width % encoder.patch_size == 0


def test_frames_of_dinos_pairs_agree_in_shapes_and_not_in_paint():
    """Paint is another one after two periods, and mostly after one; other frames are compared."""
    experiment = dino_tiny()
    smallest, largest = experiment.data.gap_seconds
    assert WORLD.paint_seconds < smallest < largest < WORLD.num_frames / WORLD.fps
    assert experiment.method.terms == "cross"
