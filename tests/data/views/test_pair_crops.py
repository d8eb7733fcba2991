"""The published crops follow their specification, and stay the same across versions."""

import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from midway.data.views.pair_crops import MultiCropConfig, ViewsConfig
from midway.data.views.render import render_views
from midway.data.views.spec import draw_views, stack_views
from midway.errors import MidwayError
from midway.nn.images import normalise
from tests.data.views.drawn_views import (
    CONFIG,
    GLOBALS,
    LOCALS,
    MOTION,
    SPEC,
    assert_same_parameters,
    draw_each,
    draw_many,
    noise_frames,
    regions_of,
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
    drawn = draw_many(config.spec(), height, width, 300)
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


def test_both_frames_share_motion_and_global_boxes_and_flips_but_not_local_ones() -> None:
    drawn = draw_many(ViewsConfig().spec(), 96, 128, 200)
    assert np.array_equal(drawn.boxes[0], drawn.boxes[1])
    assert np.array_equal(drawn.boxes[2:4], drawn.boxes[4:6])
    assert np.array_equal(drawn.flip[2:4], drawn.flip[4:6])
    assert not drawn.flip[MOTION].any()
    assert not np.array_equal(drawn.boxes[2], drawn.boxes[3])
    source, target = np.split(drawn.boxes[LOCALS], 2)
    assert (source != target).any(2).mean() > 0.95


def test_flips_blur_and_solarisation_come_as_often_as_their_kind_says() -> None:
    num_draws = 1500
    drawn = draw_many(SPEC, 96, 128, num_draws)
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
    spec = config.spec()
    drawn = draw_each(spec, 48, 64, 1)
    views = render_views(spec, regions_of(drawn, frames, spec), stack_views(drawn))
    top, left, height, width = drawn[0].windows[0]
    for frame, view in zip(frames[0], views["motion"][:, 0], strict=True):
        crop = torch.from_numpy(frame[top : top + height, left : left + width]).permute(2, 0, 1)
        plain = interpolate(crop[None], config.motion_size, mode="bicubic", antialias=True)
        torch.testing.assert_close(view, normalise(plain / 255), atol=0.02, rtol=0)


def test_parameters_travel_between_processes_in_a_few_kilobytes() -> None:
    drawn = draw_views(ViewsConfig().spec(), 720, 1280, np.random.default_rng(0))
    pickled = pickle.dumps(drawn)
    assert_same_parameters(pickle.loads(pickled), drawn)
    assert len(pickled) < 5000


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
        ("aspect", (1.0, math.inf)),
    ],
)
def test_a_config_that_makes_no_sense_names_its_field(field: str, value: object) -> None:
    with pytest.raises(MidwayError, match=field):
        dataclasses.replace(CONFIG, **{field: value})  # pyright: ignore[reportArgumentType]


WINDOWS = [[33, 58, 182, 138], [78, 67, 109, 121]]
BOXES = [
    *([[0, 0, 182, 138]] * 2),
    *([[9, 19, 82, 102], [2, 35, 100, 79]] * 2),
    *([11, 42, 41, 49], [52, 48, 55, 54], [55, 41, 53, 49], [43, 35, 66, 79]),
    *([55, 65, 39, 48], [27, 21, 66, 63], [35, 17, 42, 44], [52, 12, 43, 46]),
    *([35, 36, 48, 53], [41, 62, 48, 40], [5, 34, 63, 67], [14, 36, 76, 62]),
    *([27, 38, 71, 56], [30, 24, 69, 75], [26, 16, 52, 64], [18, 59, 30, 36]),
]
FLIPS = "0001010000111100010001"
JITTERS = "1111111111101111110111"
GREYS = "0011000000000001100100"
SOLARISED = "0001000000000000000000"
ORDERS = """0321 2031 1302 1230 3102 3201 3012 2310 1203 3120 1032
    3201 3210 3012 0123 1302 3120 3120 1230 1320 1230 1230"""
SIGMAS = [
    *(0.615293, 0, 0.430274, 0, 1.72355, 0, 0, 0, 0, 0, 1.48854),
    *(1.1756, 0, 0, 1.97657, 0.889333, 0.44707, 0, 0, 1.17493, 0, 0),
]
FACTORS = [
    [0.824697, 1.18456, 1.02728, 0.0799892],
    [0.958287, 0.92529, 0.922603, -0.0537255],
    [1.12061, 0.811749, 1.14491, -0.0458703],
    [1.13869, 1.05455, 1.05138, 0.0790834],
    [0.735991, 0.719852, 0.848761, -0.0847122],
    [1.02738, 0.732585, 1.12287, -0.0954779],
    [0.899686, 0.978563, 0.886611, -0.0288188],
    [0.778233, 0.825462, 1.17075, -0.0165649],
    [0.908692, 1.08894, 1.06566, 0.0320553],
    [0.667807, 1.06552, 1.09437, 0.0591137],
    [1.07083, 0.704458, 0.833496, -0.0353893],
    [1.34205, 0.978094, 1.15819, -0.00806501],
    [1.20409, 0.988102, 1.08348, -0.0365641],
    [1.31189, 0.812566, 0.802471, 0.0442332],
    [1.14128, 1.12552, 1.07497, 0.0172528],
    [0.692223, 1.13536, 0.802639, -0.0634314],
    [0.936703, 0.902695, 0.847586, -0.0146085],
    [1.09889, 0.901971, 1.0834, -0.0538156],
    [0.71506, 1.19912, 1.06749, -0.0141259],
    [0.709414, 1.13095, 1.09998, -0.0672115],
    [1.15144, 0.88451, 1.16605, 0.0503079],
    [0.818985, 1.35042, 0.810093, -0.0630352],
]


def test_draws_of_the_published_recipe_are_those_of_version_0_1() -> None:
    drawn = draw_views(ViewsConfig().spec(), 240, 320, np.random.default_rng(0))
    colour = drawn.colour
    assert drawn.windows.tolist() == WINDOWS
    assert drawn.boxes.tolist() == BOXES
    for found, wanted in (
        (drawn.flip, FLIPS),
        (colour.jitter, JITTERS),
        (colour.grey, GREYS),
        (colour.solarise, SOLARISED),
    ):
        assert "".join(str(int(each)) for each in found) == wanted
    assert ["".join(map(str, order)) for order in colour.order] == ORDERS.split()
    np.testing.assert_allclose(colour.blur_sigma, SIGMAS, rtol=5e-6)
    np.testing.assert_allclose(colour.factors, FACTORS, rtol=5e-6)


def test_crops_of_the_whole_frame_have_no_initial_crop() -> None:
    views = MultiCropConfig(initial_area="frame", global_area=(0.25, 1.0))
    spec = views.spec(num_frames=1)
    windows = draw_views(spec, 90, 160, np.random.default_rng(0)).windows
    assert windows.tolist() == [[0, 0, 90, 160]]
    with pytest.raises(MidwayError, match="global_area"):
        MultiCropConfig(initial_area="frame", global_area=(0.0, 1.0))


def test_motion_crops_in_parts_of_a_region_are_whole_parts_apart() -> None:
    config = ViewsConfig(
        motion_size=(48, 48), motion_area=(1.0, 1.0), aspect=(1.0, 1.0), motion_parts=(6, 8)
    )
    drawn = draw_many(config.spec(), 64, 64, 2000)
    source, target = drawn.boxes[MOTION][:, :, :2]
    apart = (target - source) // 8
    assert (8 * apart == target - source).all()
    assert {tuple(step) for step in apart.tolist()} == {
        (row, column) for row in range(-2, 3) for column in range(-2, 3)
    }


def test_displaced_motion_crops_of_a_still_frame_show_the_same_pixels() -> None:
    config = ViewsConfig(
        motion_size=(48, 48),
        motion_area=(1.0, 1.0),
        aspect=(1.0, 1.0),
        motion_parts=(6, 8),
        distort_colours=False,
    )
    spec = config.spec()
    (frames,) = noise_frames(1, 64, 64, num_frames=1)
    drawn = draw_each(spec, 64, 64, 5)
    still = [frames * 2] * len(drawn)
    parameters = stack_views(drawn)
    views = render_views(spec, regions_of(drawn, still, spec), parameters)["motion"][:, 0]
    for (top, left), source, target in zip(
        (parameters.boxes[MOTION, :, :2]).transpose(1, 2, 0), views[0], views[1], strict=True
    ):
        rows, columns = top[1] - top[0], left[1] - left[0]
        seen = source[:, max(rows, 0) : 48 + min(rows, 0), max(columns, 0) : 48 + min(columns, 0)]
        again = target[
            :, max(-rows, 0) : 48 - max(rows, 0), max(-columns, 0) : 48 - max(columns, 0)
        ]
        torch.testing.assert_close(seen, again)


def test_a_motion_crop_larger_than_its_region_is_refused() -> None:
    with pytest.raises(MidwayError, match="motion_parts is \\(9, 8\\); give 1 <= first <= second"):
        ViewsConfig(motion_parts=(9, 8))
