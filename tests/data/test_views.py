"""Views lie where the recipe says, in windows of the frames, and depend on their seed alone."""

import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from midway.data.colour import normalise
from midway.data.render import render_views, stack_windows
from midway.data.views import (
    ViewParameters,
    ViewsConfig,
    cut_windows,
    draw_boxes,
    draw_views,
    stack_views,
)
from midway.errors import MidwayError
from tests.data.drawn_views import (
    CONFIG,
    GLOBALS,
    LOCALS,
    MOTION,
    assert_same_parameters,
    draw_each,
    draw_many,
    noise_frames,
    windows_of,
)

FRAME_SIZES = [(720, 1280), (96, 128)]


def assert_inside(inner: NDArray, extent: NDArray) -> None:
    assert (inner[..., 2:] >= 1).all()
    assert (inner[..., :2] >= 0).all()
    assert (inner[..., :2] + inner[..., 2:] <= extent).all()


def assert_shares(boxes: NDArray, whole: NDArray | float, area: tuple[float, float]) -> None:
    """Areas and aspects in range, as far as integer sides allow."""
    height, width = boxes[..., 2], boxes[..., 3]
    assert ((height + 0.5) * (width + 0.5) >= area[0] * whole).all()
    assert ((height - 0.5) * (width - 0.5) <= area[1] * whole).all()
    assert ((width + 0.5) / (height - 0.5) >= 3 / 4).all()
    assert ((width - 0.5) / (height + 0.5) <= 4 / 3).all()


@pytest.mark.parametrize(("height", "width"), FRAME_SIZES)
def test_boxes_have_the_recipes_areas_and_aspects_and_lie_inside(height: int, width: int) -> None:
    config = ViewsConfig()
    drawn = draw_many(config, height, width, 300)
    motion, initial = drawn.windows
    initial_area = initial[:, 2] * initial[:, 3]
    assert_inside(drawn.windows, np.array([height, width]))
    assert_inside(drawn.boxes[2:], initial[:, 2:])
    assert (drawn.boxes[MOTION, :, :2] == 0).all()
    assert (drawn.boxes[MOTION, :, 2:] == motion[:, 2:]).all()
    assert_shares(motion, height * width, config.motion_area)
    assert_shares(initial, height * width, config.initial_area)
    assert_shares(drawn.boxes[GLOBALS], initial_area, config.global_area)
    assert_shares(drawn.boxes[LOCALS], initial_area, config.local_area)


def test_areas_are_uniform_and_aspects_log_uniform_and_places_uniform() -> None:
    areas = np.tile([0.05, 0.2], (20_000, 1))
    boxes = draw_boxes((2000, 3000), areas, (0.5, 2.0), np.random.default_rng(0))
    top, left, height, width = boxes.T
    for value, low, high in (
        (height * width / 6e6, 0.05, 0.2),
        (np.log(width / height), -math.log(2), math.log(2)),
        (top / (2000 - height), 0, 1),
        (left / (3000 - width), 0, 1),
    ):
        uniform = (value - low) / (high - low)
        np.testing.assert_allclose(
            np.quantile(uniform, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.02
        )


def test_boxes_reach_every_border_of_the_frame() -> None:
    areas = np.tile([0.2, 0.3], (500, 1))
    boxes = draw_boxes((8, 9), areas, (3 / 4, 4 / 3), np.random.default_rng(0))
    assert boxes[:, :2].min(0).tolist() == [0, 0]
    assert (boxes[:, :2] + boxes[:, 2:]).max(0).tolist() == [8, 9]


def test_a_frame_too_narrow_for_any_box_gives_the_largest_central_one() -> None:
    areas, rng = np.array([[0.9, 1.0]]), np.random.default_rng(0)
    wide = draw_boxes((30, 400), areas, (3 / 4, 4 / 3), rng)
    assert wide.tolist() == [[0, 180, 30, 40]]
    tall = draw_boxes((400, 30), areas, (3 / 4, 4 / 3), rng)
    assert tall.tolist() == [[180, 0, 40, 30]]


def test_both_frames_share_motion_and_global_boxes_and_flips_but_not_local_ones() -> None:
    drawn = draw_many(ViewsConfig(), 96, 128, 200)
    assert np.array_equal(drawn.boxes[0], drawn.boxes[1])
    assert np.array_equal(drawn.boxes[2:4], drawn.boxes[4:6])
    assert np.array_equal(drawn.flip[2:4], drawn.flip[4:6])
    assert not drawn.flip[MOTION].any()
    assert not np.array_equal(drawn.boxes[2], drawn.boxes[3])
    source, target = np.split(drawn.boxes[LOCALS], 2)
    assert (source != target).any(2).mean() > 0.95


def test_flips_blur_and_solarisation_come_as_often_as_their_kind_says() -> None:
    num_draws = 1500
    drawn = draw_many(CONFIG, 96, 128, num_draws)
    tolerance = 5 * 0.5 / math.sqrt(num_draws)
    np.testing.assert_allclose(drawn.flip[2:].mean(1), 0.5, atol=tolerance)
    assert (drawn.flip[2] != drawn.flip[3]).mean() > 0.4
    blurred = (drawn.colour.blur_sigma > 0).mean(1)
    np.testing.assert_allclose(blurred, [1.0, 0.1] * 3 + [0.5] * 6, atol=tolerance)
    solarised = drawn.colour.solarise.mean(1)
    expected = np.array([0.0, 0.2] * 3 + [0.0] * 6)
    np.testing.assert_allclose(solarised, expected, atol=tolerance)
    assert (solarised[expected == 0] == 0).all()
    assert (drawn.colour.factors[0] != drawn.colour.factors[1]).any(1).all()


def test_colours_that_are_not_distorted_stay_as_they_are() -> None:
    config = dataclasses.replace(CONFIG, distort_colours=False)
    frames = noise_frames(1, 48, 64)
    drawn = draw_each(config, 48, 64, 1)
    views = render_views(config, windows_of(drawn, frames), stack_views(drawn))
    top, left, height, width = drawn[0].windows[0]
    for frame, view in zip(frames[0], views.motion, strict=True):
        crop = torch.from_numpy(frame[top : top + height, left : left + width]).permute(2, 0, 1)
        plain = interpolate(crop[None], config.motion_size, mode="bicubic", antialias=True)
        torch.testing.assert_close(view, normalise(plain / 255), atol=0.02, rtol=0)


def test_the_seed_alone_decides() -> None:
    def draw(seed: int) -> ViewParameters:
        torch.rand(3)
        return draw_views(CONFIG, 96, 128, np.random.default_rng(seed))

    assert_same_parameters(draw(5), draw(5))
    assert not np.array_equal(draw(5).boxes, draw(6).boxes)


def test_parameters_travel_between_processes_in_a_few_kilobytes() -> None:
    drawn = draw_views(ViewsConfig(), 720, 1280, np.random.default_rng(0))
    pickled = pickle.dumps(drawn)
    assert_same_parameters(pickle.loads(pickled), drawn)
    assert len(pickled) < 5000


def test_windows_are_copies_of_their_part_of_both_frames() -> None:
    (pair,) = noise_frames(1, 96, 128)
    (drawn,) = draw_each(CONFIG, 96, 128, 1)
    for window, box in zip(cut_windows(drawn, *pair), drawn.windows.tolist(), strict=True):
        top, left, height, width = box
        assert window.shape == (2, height, width, 3)
        assert window.flags.c_contiguous
        for cut, frame in zip(window, pair, strict=True):
            assert np.array_equal(cut, frame[top : top + height, left : left + width])
            assert not np.shares_memory(cut, frame)


def test_a_batch_of_windows_is_padded_with_zeros_to_sides_a_gpu_likes() -> None:
    rng = np.random.default_rng(0)
    shapes = [(2, 30, 21, 3), (2, 17, 50, 3)]
    windows = [rng.integers(1, 256, shape, dtype=np.uint8) for shape in shapes]
    batch = stack_windows(windows)
    assert batch.shape == (2, 2, 3, 32, 56)
    assert batch.dtype == torch.uint8
    assert batch.permute(0, 1, 3, 4, 2).is_contiguous()
    for i, window in enumerate(windows):
        held = batch[:, i, :, : window.shape[1], : window.shape[2]]
        assert np.array_equal(held.permute(0, 2, 3, 1).numpy(), window)
        assert torch.count_nonzero(batch[:, i]) == window.size


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("motion_size", (0, 224)),
        ("local_size", (96, -1)),
        ("num_local", -1),
        ("initial_area", (0.0, 0.2)),
        ("local_area", (0.4, 0.05)),
        ("global_area", (0.4, 1.1)),
        ("aspect", (0.0, 1.0)),
    ],
)
def test_a_config_that_makes_no_sense_names_its_field(field: str, value: object) -> None:
    with pytest.raises(MidwayError, match=field):
        dataclasses.replace(CONFIG, **{field: value})  # pyright: ignore[reportArgumentType]
