"""Synthetic worlds: exact flow and masks at any time; only the texture identifies the class."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn.functional import grid_sample

from midway.data.synthetic.world import CLASS_NAMES, World, WorldConfig
from midway.errors import MidwayError

CONFIG = WorldConfig()
STILL = WorldConfig(object_speed=0.0, camera_speed=0.0)


def sample(image, x, y):
    """Bilinear samples of an (H, W, C) image, by torch rather than by our own code."""
    height, width = image.shape[:2]
    grid = np.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], axis=-1)
    out = grid_sample(
        torch.tensor(image, dtype=torch.float64).permute(2, 0, 1)[None],
        torch.tensor(grid, dtype=torch.float64)[None],
        padding_mode="border",
        align_corners=True,
    )
    return out[0].permute(1, 2, 0).numpy()


def landing(flow):
    """Where each pixel goes: x and y."""
    y, x = np.indices(flow.shape[:2])
    return x + flow[..., 0], y + flow[..., 1]


def inner(instances):
    """Pixels all of whose neighbours show the same object."""
    padded = np.pad(instances, 1, mode="edge")
    height, width = instances.shape
    shifts = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return np.all([shift == instances for shift in shifts], axis=0)


def warp_error(source, target, flow, where):
    warped = sample(target.image.astype(np.float64), *landing(flow))
    return np.abs(warped - source.image)[where].mean()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("gap_seconds", [0.5, 1.0, -0.7])
def test_the_target_frame_warped_by_the_flow_is_the_source_frame(seed, gap_seconds):
    world = World(CONFIG, seed)
    source, target = world.frame(3.0), world.frame(3.0 + gap_seconds)
    motion = world.flow(3.0, 3.0 + gap_seconds)
    where = inner(source.instances) & ~motion.occluded
    error = warp_error(source, target, motion.flow, where)
    assert error < 3  # of 255 grey levels: bilinear sampling, edges of occluders
    wrong = {
        "still": 0 * motion.flow,
        "reversed": -motion.flow,
        "axes swapped": motion.flow[..., ::-1],
        "half a pixel off": motion.flow + 0.5,
    }
    errors = {name: warp_error(source, target, flow, where) for name, flow in wrong.items()}
    assert errors.pop("half a pixel off") > 2 * error, (error, errors)
    assert min(errors.values()) > 10 * error, (error, errors)


@pytest.mark.parametrize("seed", range(4))
def test_seen_points_land_on_their_own_object_and_hidden_ones_on_a_nearer_one(seed):
    world = World(CONFIG, seed)
    source, target = world.frame(10.0).instances, world.frame(11.0).instances
    motion = world.flow(10.0, 11.0)
    x, y = (np.rint(place).astype(int) for place in landing(motion.flow))
    in_frame = (x >= 0) & (x < CONFIG.width) & (y >= 0) & (y < CONFIG.height)
    assert motion.occluded[~in_frame].all()
    # Off the raster's staircase, one pixel along each outline, the masks decide exactly.
    solid = in_frame & inner(target)[y.clip(0, 95), x.clip(0, 127)]
    there = target[y.clip(0, 95), x.clip(0, 127)]
    seen, hidden = solid & ~motion.occluded, solid & motion.occluded
    np.testing.assert_array_equal(there[seen], source[seen])
    assert hidden.sum() > 50
    assert (there[hidden] > source[hidden]).all()


def test_flow_back_undoes_flow_forth_wherever_both_see_the_point():
    world = World(CONFIG, 5)
    forth, back = world.flow(0.0, 0.8), world.flow(0.8, 0.0)
    source, target = world.frame(0.0).instances, world.frame(0.8).instances
    x, y = landing(forth.flow)
    sampled_back = sample(back.flow, x, y)
    settled = sample(inner(target)[..., None].astype(float), x, y)[..., 0] == 1
    settled &= (x >= 0) & (x <= CONFIG.width - 1) & (y >= 0) & (y <= CONFIG.height - 1)
    where = settled & inner(source) & ~forth.occluded
    assert where.mean() > 0.5
    # Flow is affine on a surface, so bilinear sampling of it is exact.
    np.testing.assert_allclose((forth.flow + sampled_back)[where], 0, atol=1e-3)


def test_a_world_without_speed_stands_still():
    world = World(STILL, 1)
    motion = world.flow(0.0, 9.0)
    np.testing.assert_allclose(motion.flow, 0, atol=1e-6)
    assert not motion.occluded.any()
    np.testing.assert_array_equal(world.frame(0.0).image, world.frame(9.0).image)


def test_camera_motion_is_the_background_flow_at_the_image_centre():
    world = World(replace(CONFIG, height=65, width=97, num_objects=0), 2)
    centre_flow = world.flow(1.0, 2.0).flow[32, 48]
    assert np.hypot(*centre_flow) > 1
    np.testing.assert_allclose(world.camera_motion(1.0, 2.0), centre_flow, atol=1e-5)


def test_objects_at_rest_follow_the_camera_by_one_to_one_and_a_half_times():
    for seed in (0, 1, 2, 5):
        world = World(replace(CONFIG, object_speed=0.0, camera_speed=20.0), seed)
        instances, motion = world.frame(0.0).instances, world.flow(0.0, 0.5).flow
        camera = world.camera_motion(0.0, 0.5)
        assert np.hypot(*camera) > 5
        for number in np.unique(instances[instances > 0]):
            shifts = motion[instances == number]
            np.testing.assert_allclose(shifts, np.broadcast_to(shifts[0], shifts.shape), atol=1e-4)
            # The camera also turns a little, which objects do not follow: hence the slack.
            parallax = shifts[0] @ camera / (camera @ camera)
            assert 0.85 < parallax < 1.65
            assert np.hypot(*(shifts[0] - parallax * camera)) < 1.5


def test_the_camera_has_the_speed_it_was_given():
    world = World(replace(CONFIG, camera_speed=20.0), 0)
    steps = [world.camera_motion(t, t + 0.01) / 0.01 for t in np.arange(0, 1000, 0.5)]
    assert np.sqrt(np.square(steps).sum(axis=1).mean()) == pytest.approx(20, rel=0.1)


@pytest.mark.parametrize(("seed", "sign"), [(4, 1), (5, -1)])
def test_a_pan_moves_the_backdrop_alone_and_always_as_fast(seed, sign):
    still = WorldConfig(num_objects=3, camera_speed=0.0, object_speed=0.0)
    world = World(replace(still, pan_speed=16.0), seed)
    for source_seconds in (0.0, 1.3):
        flow = world.flow(source_seconds, source_seconds + 0.5).flow
        is_backdrop = world.frame(source_seconds).instances == 0
        np.testing.assert_allclose(flow[is_backdrop] - (sign * 8.0, 0.0), 0, atol=1e-4)
        np.testing.assert_allclose(flow[~is_backdrop], 0, atol=1e-4)


def test_the_camera_stays_on_the_axis_along_which_it_reaches():
    world = World(WorldConfig(camera_reach=(0.3, 0.0)), 3)
    x, y = np.transpose([world.camera_motion(0.0, seconds) for seconds in np.linspace(0, 9, 40)])
    assert np.abs(x).max() > 1
    # The remainder is the camera's rotation and scaling about the centre, which barely moves it.
    assert np.abs(y).max() < 0.1 * np.abs(x).max()


def test_shorter_periods_make_a_finer_backdrop():
    coarse, fine = (
        World(WorldConfig(num_objects=0, backdrop_periods=periods), 3).frame(0.0).image
        for periods in ((0.5, 0.9), (0.1, 0.2))
    )

    def roughness(image):
        return np.abs(np.diff(image.astype(float), axis=1)).mean()

    assert roughness(fine) > 2 * roughness(coarse)


def test_points_move_5_to_20_pixels_a_second_on_average():
    speeds = [np.hypot(*World(CONFIG, s).flow(0.0, 1.0).flow.T).mean() for s in range(20)]
    assert 5 < np.mean(speeds) < 20


def test_objects_of_all_classes_stay_in_view_for_ever():
    worlds = [World(CONFIG, seed) for seed in range(10)]
    frames = [world.frame(t) for world in worlds for t in (0.0, 7.0, 100.0, 1000.0, 1e5)]
    seen = [len(np.unique(frame.classes)) - 1 for frame in frames]
    assert np.mean(seen) > 4.5
    covered = np.mean([frame.instances > 0 for frame in frames])
    assert 0.15 < covered < 0.45


def test_a_world_depends_on_seed_and_time_alone():
    first, again = World(CONFIG, 7), World(CONFIG, 7)
    again.frame(50.0)
    np.testing.assert_array_equal(first.frame(2.5).image, again.frame(2.5).image)
    np.testing.assert_array_equal(first.flow(0, 1).flow, again.flow(0, 1).flow)
    assert (World(CONFIG, 8).frame(2.5).image != first.frame(2.5).image).mean() > 0.5


def test_motion_is_smooth_below_a_pixel():
    world = World(CONFIG, 3)
    frames = [world.frame(t).image.astype(float) for t in np.linspace(0, 0.1, 5)]
    steps = [np.abs(later - earlier).mean() for earlier, later in pairwise(frames)]
    assert 0 < max(steps) < 1.5 * min(steps)
    assert max(steps) < 3


@pytest.mark.parametrize(
    ("height", "width", "num_objects"), [(16, 16, 0), (33, 47, 1), (71, 301, 13)]
)
def test_any_size_and_number_of_objects_will_do(height, width, num_objects):
    config = WorldConfig(height=height, width=width, num_objects=num_objects)
    world = World(config, 0)
    frame, motion = world.frame(-3.0), world.flow(-3.0, 1000.0)
    assert frame.image.shape == (height, width, 3)
    assert frame.image.dtype == frame.instances.dtype == frame.classes.dtype == np.uint8
    assert frame.instances.shape == frame.classes.shape == (height, width)
    assert motion.flow.shape == (height, width, 2)
    assert np.isfinite(motion.flow).all()
    assert frame.instances.max() <= num_objects
    np.testing.assert_array_equal(frame.classes == 0, frame.instances == 0)
    assert frame.classes.max() < len(CLASS_NAMES)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"height": 8}, "8 x 128 pixels"),
        ({"num_frames": 0}, "0 frames"),
        ({"fps": 0.0}, "0.0 fps"),
        ({"fps": float("nan")}, "nan fps"),
        ({"fps": float("inf")}, "inf fps"),
        ({"num_objects": 256}, "give 0 to 255"),
        ({"object_size": (0.5, 0.2)}, "give 0 < smallest <= largest"),
        ({"object_size": (0.0, 0.2)}, "give 0 < smallest <= largest"),
    ],
)
def test_a_config_that_makes_no_world_is_refused(field, message):
    with pytest.raises(MidwayError, match=message):
        replace(CONFIG, **field)


def test_objects_are_as_wide_as_the_config_says():
    still = replace(STILL, num_objects=1, object_size=(0.25, 0.75))
    widths = []
    for seed in range(8):
        rows, columns = np.nonzero(World(still, seed).frame(0.0).instances)
        # Between all pairs of parallel lines; a corner lies farther out than a side.
        widest = max(
            np.ptp(np.cos(angle) * columns + np.sin(angle) * rows)
            for angle in np.linspace(0, np.pi, 64)
        )
        widths.append(widest / still.height)
    assert 0.9 * 0.25 < min(widths) < 0.5 < max(widths) < 1.4 * 0.75


def orientation_order(grey, where):
    """How strongly gradient directions repeat every 180, 90 and 60 degrees (0 to 1 each)."""
    down, right = np.gradient(grey)
    gradient = (right + 1j * down)[where]
    power = np.abs(gradient) ** 2
    direction = gradient / np.maximum(np.abs(gradient), 1e-9)
    return [abs((power * direction**n).sum()) / power.sum() for n in (2, 4, 6)]


def nearest_mean_accuracy(features, labels):
    """Accuracy on the second half of a nearest-class-mean classifier of the first half."""
    features = np.asarray(features)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    half = len(labels) // 2
    means = np.stack([features[:half][labels[:half] == c].mean(axis=0) for c in np.unique(labels)])
    distances = np.linalg.norm(features[half:, None] - means, axis=-1)
    return (np.unique(labels)[distances.argmin(axis=1)] == labels[half:]).mean()


def test_texture_identifies_the_class_and_colour_does_not():
    colours, textures, areas, labels = [], [], [], []
    for seed in range(150):
        frame = World(CONFIG, seed).frame(0.0)
        solid = inner(frame.instances)
        for number in range(1, CONFIG.num_objects + 1):
            where = solid & (frame.instances == number)
            if where.sum() > 150:
                pixels = frame.image[where].astype(float)
                colours.append([*pixels.mean(axis=0), *pixels.std(axis=0)])
                textures.append(orientation_order(frame.image.mean(axis=-1), where))
                areas.append([where.sum()])
                labels.append(frame.classes[where][0])
    labels = np.array(labels)
    assert len(labels) > 400
    chance = 1 / (len(CLASS_NAMES) - 1)
    assert nearest_mean_accuracy(colours, labels) < chance + 0.08
    assert nearest_mean_accuracy(areas, labels) < chance + 0.08
    assert nearest_mean_accuracy(textures, labels) > 3 * chance
