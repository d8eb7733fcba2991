"""Recognition world: exact flow and masks; only the arrangement of parts identifies the class."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from midway.data.synthetic.rigid import GRID, rounded
from midway.data.synthetic.shape_world import SHAPE_CLASSES, ShapeWorld, ShapeWorldConfig
from midway.data.synthetic.shapes import SHAPES, Shape
from midway.errors import MidwayError
from midway.experiments.recognition import WORLD
from tests.data.synthetic.test_world import inner, landing, sample, warp_error

CONFIG = ShapeWorldConfig()
UNLIT = replace(CONFIG, light_change=0.0)
FROZEN = {
    0: "2ecc003c11cbc36701c7b314751d37ce3cb365132285870efd2a52f70ea44a00",
    7: "5b1cda901a69c8028bdf9c0d7bd54ca767925a0e5eb02aa7027cef6eecc84bdd",
    1_000_003: "f28080290ad28fbfd79682869814409450caea3c581bace53adeb31784aeea36",
}
"""SHA-256 of frames, classes, instances and flow of three worlds. If they change, no number of the
recognition world is comparable with earlier ones: make another world instead."""
FADING_FROZEN = "c3bcd2b919b8eaae00d35513ec82edfe317ffa2dd4cacb286d05a4cd0a8463ba"
"""The same of a world whose paint fades, of seed 3."""


@pytest.mark.parametrize("seed", FROZEN)
def test_the_world_is_frozen(seed):
    assert digest_of(ShapeWorld(CONFIG, seed)) == FROZEN[seed]


def test_the_world_of_fading_paint_is_frozen():
    assert digest_of(ShapeWorld(WORLD, 3)) == FADING_FROZEN


def digest_of(world):
    """Hash three frames and a flow."""
    digest = hashlib.sha256()
    for seconds in (0.0, 0.7, 1.9):
        frame = world.frame(seconds)
        for array in (frame.image, frame.classes, frame.instances):
            digest.update(array.tobytes())
    digest.update(world.flow(0.3, 0.8).flow.tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("seed", range(3))
def test_the_target_frame_warped_by_the_flow_is_the_source_frame(seed):
    world = ShapeWorld(UNLIT, seed)
    source, target = world.frame(0.2), world.frame(0.9)
    motion = world.flow(0.2, 0.9)
    where = inner(source.instances) & ~motion.occluded
    assert where.mean() > 0.6
    error = warp_error(source, target, motion.flow, where)
    assert error < 2  # of 255 grey levels: bilinear sampling, edges of occluders
    for wrong in (0 * motion.flow, -motion.flow, motion.flow + 1):
        assert warp_error(source, target, wrong, where) > 2 * error


def test_seen_points_land_on_their_own_object():
    world = ShapeWorld(CONFIG, 3)
    source, target = world.frame(0.0).instances, world.frame(1.0).instances
    motion = world.flow(0.0, 1.0)
    x, y = (np.rint(place).astype(int) for place in landing(motion.flow))
    in_frame = (x >= 0) & (x < CONFIG.width) & (y >= 0) & (y < CONFIG.height)
    x, y = x.clip(0, CONFIG.width - 1), y.clip(0, CONFIG.height - 1)
    seen = in_frame & inner(target)[y, x] & ~motion.occluded
    assert seen.mean() > 0.5
    np.testing.assert_array_equal(target[y, x][seen], source[seen])


def test_camera_motion_is_the_flow_of_the_background_at_the_centre():
    world = ShapeWorld(replace(CONFIG, height=65, width=97, num_objects=0), 2)
    flow = world.flow(0.0, 1.0).flow[32, 48]
    assert np.hypot(*flow) > 1
    np.testing.assert_allclose(world.camera_motion(0.0, 1.0), flow, atol=1e-5)


def test_every_object_moves_rigidly_and_in_its_own_way():
    world = ShapeWorld(CONFIG, 4)
    instances, motion = world.frame(0.0).instances, world.flow(0.0, 0.3).flow
    y, x = np.indices(instances.shape)
    means = []
    for number in range(CONFIG.num_objects + 1):
        at = instances == number
        # A similarity transform: flow is (a - 1, -b; b, a - 1) times the place, plus a shift.
        zero, one = np.zeros(at.sum()), np.ones(at.sum())
        along = np.stack([x[at], -y[at], one, zero], axis=1)
        down = np.stack([y[at], x[at], zero, one], axis=1)
        system, wanted = np.concatenate([along, down]), motion[at].T.ravel()
        solution = np.linalg.lstsq(system, wanted, rcond=None)[0]
        np.testing.assert_allclose(system @ solution, wanted, atol=1e-3)
        means.append(motion[at].mean(0))
    assert min(np.hypot(*(a - b)) for i, a in enumerate(means) for b in means[:i]) > 0.1


def test_light_changes_over_time_and_the_frame_and_nothing_else_does():
    still = replace(CONFIG, object_speed=0.0, camera_speed=0.0)
    lit, unlit = ShapeWorld(still, 1), ShapeWorld(replace(still, light_change=0.0), 1)
    first, later = lit.frame(0.0), lit.frame(1.5)
    np.testing.assert_array_equal(first.classes, later.classes)
    ratio = later.image.mean(-1)[::8, ::8] / np.maximum(first.image.mean(-1)[::8, ::8], 1)
    assert np.ptp(ratio) > 0.05
    np.testing.assert_array_equal(unlit.frame(0.0).image, unlit.frame(1.5).image)


def test_paint_fades_into_another_and_shapes_persist():
    still = replace(
        CONFIG, object_speed=0.0, camera_speed=0.0, light_change=0.0, paint_seconds=0.25
    )
    world = ShapeWorld(still, 5)
    frames = [world.frame(seconds) for seconds in (0.0, 0.01, 0.25, 0.5)]
    for frame in frames:
        np.testing.assert_array_equal(frame.instances, frames[0].instances)
    images = [frame.image.astype(np.float64) for frame in frames]
    change = [np.abs(image - images[0]).mean() for image in images]
    # As different after one period as after two, and hardly after a twenty-fifth of one.
    assert change[1] < 0.2 * change[2]
    assert 0.5 < change[3] / change[2] < 2
    halfway = world.frame(0.375).image
    assert np.abs(halfway - (images[2] + images[3]) / 2).max() <= 1
    # Times before 0 have paints of their own.
    assert np.abs(world.frame(-0.25).image - images[2]).mean() > 0.5 * change[2]


def test_a_world_whose_paint_fades_begins_as_the_one_of_constant_paint():
    fading = ShapeWorld(replace(CONFIG, paint_seconds=0.5), 5)
    np.testing.assert_array_equal(fading.frame(0.0).image, ShapeWorld(CONFIG, 5).frame(0.0).image)
    first, second = (ShapeWorld(CONFIG, 5).flow(0.2, 0.9), fading.flow(0.2, 0.9))
    np.testing.assert_array_equal(first.flow, second.flow)


@pytest.mark.parametrize("name", SHAPES)
def test_parts_are_capsules_of_one_thickness_within_the_radius(name):
    shape = Shape.random(np.random.default_rng(1), name, size=60.0, thickness=0.25)
    y, x = np.mgrid[-60:61, -60:61].astype(np.float32)
    inside = shape.distance(x, y) < 0
    assert np.hypot(x, y)[inside].max() <= shape.radius
    # Independent of the closed form: the smallest distance to many points of the segments.
    t = np.linspace(0, 1, 200)[:, None]
    dots = [(a * (1 - t) + b * t) for a, b in shape.segments.reshape(-1, 2, 2)]
    dots = np.concatenate(dots)
    rows = np.random.default_rng(2).integers(0, x.size, 300)
    points = np.stack([x.ravel(), y.ravel()], 1)[rows]
    nearest = np.sqrt(((points[:, None] - dots) ** 2).sum(-1)).min(1) - 60.0 * 0.25 / 2
    np.testing.assert_allclose(shape.distance(*points.T), nearest, atol=0.05)


def test_holes_and_parts_of_the_classes():
    """Topology of the silhouettes: only the ring has a hole."""
    y, x = np.mgrid[-60:61, -60:61].astype(np.float32)
    for name in SHAPES:
        for seed in range(5):
            shape = Shape.random(np.random.default_rng(seed), name, size=70.0, thickness=0.29)
            inside = shape.distance(x, y) < 0
            assert reached(inside, inside.nonzero()[0][0], inside.nonzero()[1][0]).sum() == (
                inside.sum()
            )
            outside = reached(~inside, 0, 0)
            assert (name == "ring") == (outside.sum() < (~inside).sum()), (name, seed)


def reached(free, row, column):
    """Flood fill from a point."""
    found = np.zeros_like(free)
    found[row, column] = free[row, column]
    while True:
        grown = found.copy()
        grown[1:] |= found[:-1]
        grown[:-1] |= found[1:]
        grown[:, 1:] |= found[:, :-1]
        grown[:, :-1] |= found[:, 1:]
        grown &= free
        if (grown == found).all():
            return found
        found = grown


def test_neither_colour_nor_area_identifies_a_class():
    colours, areas, labels = [], [], []
    for seed in range(120):
        frame = ShapeWorld(CONFIG, seed).frame(0.0)
        for number in range(1, CONFIG.num_objects + 1):
            where = frame.instances == number
            if where.sum() > 250:
                colours.append(frame.image[where].mean(0))
                areas.append(where.sum())
                labels.append(frame.classes[where][0])
    colours, labels = np.array(colours), np.array(labels)
    spread = np.stack([colours[labels == c].mean(0) for c in range(1, len(SHAPE_CLASSES))])
    # Class means differ no more than samples of their size do: 4 standard errors.
    count = min(np.bincount(labels)[1:])
    assert np.abs(spread - colours.mean(0)).max() < 4 * colours.std() / np.sqrt(count)


def test_objects_cover_a_fifth_of_the_frame_and_stay_in_view():
    frames = [ShapeWorld(CONFIG, seed).frame(t) for seed in range(20) for t in (0.0, 1.0, 1e4)]
    covered = np.mean([frame.instances > 0 for frame in frames])
    assert 0.15 < covered < 0.25
    seen = [len(np.unique(frame.instances)) - 1 for frame in frames]
    assert np.mean(seen) > 0.98 * CONFIG.num_objects


def test_scenes_have_as_many_classes_as_the_config_says():
    for count in (1, 3):
        config = replace(CONFIG, classes_per_scene=count)
        for seed in range(5):
            assert len(np.unique(ShapeWorld(config, seed).frame(0.0).classes)) == 1 + count
    every = {c for seed in range(40) for c in ShapeWorld(CONFIG, seed).frame(0.0).classes.flat}
    assert every == set(range(len(SHAPE_CLASSES)))


@pytest.mark.parametrize("value", [0.123456789, -3.2, 1e-9])
def test_numbers_are_rounded_to_a_grid_that_float32_holds(value):
    assert abs(rounded(value) - value) <= GRID / 2
    assert rounded(value) % GRID == 0
    assert float(np.float32(rounded(value))) == rounded(value)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"height": 8}, "8 x 128 pixels"),
        ({"num_frames": 0}, "0 frames"),
        ({"paint_seconds": 0.0}, "paint_seconds = 0.0; give a time above 0"),
        ({"num_objects": 256}, "give 0 to 255"),
        ({"classes_per_scene": 0}, "give 1 to 6"),
        ({"classes_per_scene": 7}, "give 1 to 6"),
    ],
)
def test_a_config_that_makes_no_world_is_refused(field, message):
    with pytest.raises(MidwayError, match=message):
        replace(CONFIG, **field)


def test_bilinear_samples_agree_with_the_image():
    """The helper of the warp test reads the image itself at whole pixels."""
    image = ShapeWorld(CONFIG, 0).frame(0.0).image.astype(np.float64)
    y, x = np.indices(image.shape[:2])
    np.testing.assert_allclose(sample(image, x, y), image, atol=1e-6)
