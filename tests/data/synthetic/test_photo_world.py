"""World of photographs: exact flow, occlusion and masks, from pictures that the test draws."""

import hashlib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from midway.data.synthetic import cutouts
from midway.data.synthetic.cutouts import SAMPLES, Photo, Polygon, find_photos
from midway.data.synthetic.photo_world import PhotoWorld, PhotoWorldConfig
from midway.data.synthetic.write import write_flow_dataset, write_videos
from midway.errors import MidwayError
from tests.data.synthetic.test_world import inner, landing, warp_error

FROZEN = {
    0: "d8c697250b45ea58c2425d255c752813dcfa7c7030a7800f42fe989811c3e8ac",
    5: "9c94140e8e36d5308c0361c9f4d8905bc4f62d681335ed48a89facc9f79e00de",
}
"""SHA-256 of frames, masks and flow of two worlds. If they change, videos written before differ
from those written after."""


def draw(seed: int, rows: int = 90, columns: int = 120) -> np.ndarray:
    """Draw a picture in whole numbers, so that it is equal on all machines: shades and boxes."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((rows, columns))
    channels = [(x * a + y * b + x * y // c) % 256 for a, b, c in rng.integers(1, 5, (3, 3))]
    picture = np.stack(channels, axis=-1).astype(np.uint8) // 2
    for top, left, high, wide in rng.integers(4, 60, (12, 4)):
        picture[top : top + high // 2, left : left + wide] = rng.integers(60, 256, 3)
    return picture


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(4):
        Image.fromarray(draw(seed)).save(folder / f"{seed}.png")
    return str(folder)


@pytest.fixture
def config(photos) -> PhotoWorldConfig:
    return PhotoWorldConfig(photos=photos)


@pytest.mark.parametrize("seed", FROZEN)
def test_the_world_is_frozen(config, seed):
    world = PhotoWorld(config, seed)
    digest = hashlib.sha256()
    for seconds in (0.0, 0.7, 1.9):
        frame = world.frame(seconds)
        for array in (frame.image, frame.classes, frame.instances):
            digest.update(array.tobytes())
    motion = world.flow(0.3, 0.8)
    digest.update(motion.flow.tobytes() + motion.occluded.tobytes())
    assert digest.hexdigest() == FROZEN[seed]


def test_frames_are_a_pure_function_of_config_seed_time_and_pictures(config, photos, tmp_path):
    world = PhotoWorld(config, 3)
    later, first = world.frame(1.3).image, world.frame(0.0).image
    np.testing.assert_array_equal(PhotoWorld(config, 3).frame(0.0).image, first)
    np.testing.assert_array_equal(world.frame(1.3).image, later)
    others = [PhotoWorld(config, 4), PhotoWorld(replace(config, num_objects=1), 3)]
    for number, picture in enumerate(sorted(Path(photos).iterdir())):
        flipped = np.asarray(Image.open(picture))[:, ::-1]
        Image.fromarray(flipped).save(tmp_path / f"{number}.png")
    others.append(PhotoWorld(replace(config, photos=str(tmp_path)), 3))
    assert all((other.frame(0.0).image != first).any() for other in others)
    np.testing.assert_array_equal(others[-1].flow(0, 1).flow, world.flow(0, 1).flow)


def test_a_pan_of_whole_pixels_shifts_the_frame_to_the_last_bit(config):
    still = replace(config, camera_speed=0.0, pan_speed=16.0, num_objects=0)
    for seed, shift in ((2, 8), (3, -8)):
        world = PhotoWorld(still, seed)
        np.testing.assert_allclose(world.flow(1.0, 1.5).flow - [shift, 0], 0, atol=1e-6)
        np.testing.assert_allclose(world.camera_motion(1.0, 1.5), [shift, 0], atol=1e-6)
        source, target = world.frame(1.0).image, world.frame(1.5).image
        moved = np.roll(source, shift, axis=1)
        np.testing.assert_array_equal(target[:, 8:-8], moved[:, 8:-8])
        assert world.flow(1.0, 1.5).occluded.mean() == 8 / config.width


def test_the_flow_of_the_backdrop_is_a_turn_a_zoom_and_a_shift(config):
    moving = replace(config, num_objects=0, camera_turn=0.4, camera_zoom=0.5, camera_speed=40.0)
    world = PhotoWorld(moving, 1)
    flow = world.flow(0.0, 0.6).flow
    y, x = np.indices(flow.shape[:2])
    # Flow is (a - 1, -b; b, a - 1) times the place, plus a shift.
    zero, one = np.zeros(x.size), np.ones(x.size)
    across = np.stack([x.ravel(), -y.ravel(), one, zero], axis=1)
    down = np.stack([y.ravel(), x.ravel(), zero, one], axis=1)
    system, wanted = np.concatenate([across, down]), flow.reshape(-1, 2).T.ravel()
    a, b, *_ = np.linalg.lstsq(system, wanted, rcond=None)[0]
    np.testing.assert_allclose(
        system @ np.linalg.lstsq(system, wanted, rcond=None)[0], wanted, atol=1e-3
    )
    assert abs(np.log(np.hypot(1 + a, b))) > 0.05  # zoom
    assert abs(np.arctan2(b, 1 + a)) > 0.05  # turn


@pytest.mark.parametrize("seed", range(3))
def test_the_target_frame_warped_by_the_flow_is_the_source_frame(config, seed):
    world = PhotoWorld(config, seed)
    source, target = world.frame(0.2), world.frame(0.9)
    motion = world.flow(0.2, 0.9)
    where = inner(source.instances) & ~motion.occluded
    assert where.mean() > 0.5
    error = warp_error(source, target, motion.flow, where)
    assert error < 8  # of 255 grey levels: the pictures have hard edges
    for wrong in (0 * motion.flow, -motion.flow, motion.flow + 1):
        assert warp_error(source, target, wrong, where) > 2 * error


@pytest.mark.parametrize("seed", range(3))
def test_seen_points_land_on_their_own_object_and_hidden_ones_on_a_nearer_one(config, seed):
    world = PhotoWorld(replace(config, num_objects=8, object_speed=40.0), seed)
    source, target = world.frame(0.0).instances, world.frame(1.0).instances
    motion = world.flow(0.0, 1.0)
    x, y = (np.rint(place).astype(int) for place in landing(motion.flow))
    in_frame = (x >= 0) & (x < config.width) & (y >= 0) & (y < config.height)
    assert motion.occluded[~in_frame].all()
    x, y = x.clip(0, config.width - 1), y.clip(0, config.height - 1)
    # Off the raster's staircase, one pixel along each outline, the masks decide exactly.
    solid = in_frame & inner(target)[y, x]
    seen, hidden = solid & ~motion.occluded, solid & motion.occluded
    np.testing.assert_array_equal(target[y, x][seen], source[seen])
    assert (target[y, x][hidden] > source[hidden]).all()
    assert hidden.mean() > 0.01


def test_objects_are_many_move_on_their_own_and_have_one_class(config):
    worlds = [PhotoWorld(config, seed) for seed in range(10)]
    frames = [world.frame(0.0) for world in worlds]
    assert {c for frame in frames for c in np.unique(frame.classes)} == {0, 1}
    np.testing.assert_array_equal(frames[0].classes, frames[0].instances > 0)
    assert np.mean([len(np.unique(frame.instances)) - 1 for frame in frames]) > 3
    motion = worlds[0].flow(0.0, 0.5).flow
    shown = np.unique(frames[0].instances)
    means = [motion[frames[0].instances == number].mean(0) for number in shown]
    assert min(np.hypot(*(a - b)) for i, a in enumerate(means) for b in means[:i]) > 0.1


def test_any_size_and_rate(photos):
    wide = PhotoWorldConfig(photos=photos, height=40, width=200, fps=7.0, num_objects=2)
    assert PhotoWorld(wide, 0).frame(2.5).image.shape == (40, 200, 3)
    # The pictures are 90 pixels high: the frame covers all of one.
    large = PhotoWorldConfig(photos=photos, height=180, width=120, num_objects=0)
    assert PhotoWorld(large, 0).frame(0.0).image.std() > 20


def test_writers_take_the_world(config, tmp_path):
    short = replace(config, num_frames=3, fps=2.0)
    (video,) = write_videos(tmp_path / "videos", short, seeds=[1])
    assert video.stat().st_size > 0
    write_flow_dataset(tmp_path / "flow", short, seeds=[1])
    images = sorted((tmp_path / "flow/training/clean/world_0001").iterdir())
    world = PhotoWorld(short, 1)
    for number, image in enumerate(images):
        np.testing.assert_array_equal(np.asarray(Image.open(image)), world.frame(number / 2).image)


def test_a_photo_is_the_picture_at_its_samples_and_mirrored_at_its_edges():
    samples = np.random.default_rng(0).random((6, 9, 3)).astype(np.float32)
    photo = Photo(samples=samples, origin=(3.0, 2.0))
    row, column = np.indices((6, 9))
    x, y = (column - 3) / SAMPLES, (row - 2) / SAMPLES
    np.testing.assert_allclose(photo.colour(x, y), samples, atol=1e-6)
    np.testing.assert_allclose(photo.colour(x + 9 / SAMPLES, y), samples[:, ::-1], atol=1e-6)
    np.testing.assert_allclose(photo.colour(x, y - 6 / SAMPLES), samples[::-1], atol=1e-6)
    np.testing.assert_allclose(photo.colour(x + 18 / SAMPLES, y), samples, atol=1e-6)
    between = photo.colour(x[:, :-1] + 0.5 / SAMPLES, y[:, :-1])
    np.testing.assert_allclose(between, (samples[:, 1:] + samples[:, :-1]) / 2, atol=1e-6)


def test_outlines_are_smooth_or_angular_and_their_distance_is_exact():
    counts = set()
    for seed in range(8):
        outline = Polygon.random(np.random.default_rng(seed), size=40.0)
        corners = outline.vertices
        counts.add(len(corners) == Polygon.SMOOTH)
        assert 10 < outline.radius < 20.1
        # Independent of the closed form: the smallest distance to many points of the edges.
        t = np.linspace(0, 1, 60)[:, None]
        ends = zip(corners, np.roll(corners, -1, axis=0), strict=True)
        dots = np.concatenate([a * (1 - t) + b * t for a, b in ends])
        points = np.random.default_rng(seed).uniform(-25, 25, (100, 2))
        nearest = np.sqrt(((points[:, None] - dots) ** 2).sum(-1)).min(1)
        distance = outline.distance(*points.T)
        np.testing.assert_allclose(np.abs(distance), nearest, atol=0.3)
        # A point is inside if the angles to the corners turn once around it.
        angle = np.unwrap(
            np.arctan2(*(dots[None] - points[:, None]).transpose(2, 0, 1)[::-1]), axis=1
        )
        turns = np.abs(angle[:, -1] - angle[:, 0]) > np.pi
        np.testing.assert_array_equal((distance < 0)[nearest > 0.3], turns[nearest > 0.3])
    assert counts == {True, False}


def test_without_a_folder_the_pictures_are_those_of_two_packages():
    if not all(find_spec(package) for package in cutouts.PACKAGED):
        pytest.skip("needs the extra 'photos'")
    found = find_photos("")
    assert len(found) == 14
    assert PhotoWorld(PhotoWorldConfig(), 0).frame(0.0).image.std() > 10
    assert all(path.is_file() for path in found)


def test_missing_packages_are_one_line_that_says_what_to_install(monkeypatch):
    monkeypatch.setattr(cutouts, "find_spec", lambda name: None)
    with pytest.raises(MidwayError, match=r"skimage, .* is not installed; run .*\[photos\]"):
        PhotoWorldConfig().build(0)


def test_a_folder_without_pictures_or_with_a_broken_one_is_refused(tmp_path):
    with pytest.raises(MidwayError, match="no picture there"):
        PhotoWorldConfig(photos=str(tmp_path)).build(0)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(MidwayError, match=r"broken\.png: cannot be read as an image"):
        PhotoWorldConfig(photos=str(tmp_path)).build(0)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"height": 8}, "8 x 128 pixels"),
        ({"fps": 0.0}, "0.0 fps"),
        ({"num_objects": 256}, "give 0 to 255"),
        ({"object_size": (0.4, 0.2)}, "object_size = 0.4, 0.2"),
        ({"picture_share": (0.0, 0.5)}, "picture_share = 0.0, 0.5"),
        ({"camera_reach": (0.0, 0.0)}, "at least one above 0"),
    ],
)
def test_a_config_that_makes_no_world_is_refused(field, message):
    with pytest.raises(MidwayError, match=message):
        replace(PhotoWorldConfig(), **field)
