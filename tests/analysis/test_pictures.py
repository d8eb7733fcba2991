"""Pictures: colours of flow, what is drawn where, in which words and on which scale."""

import math
from io import BytesIO
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from midway.analysis.panels import panels
from midway.analysis.pictures import (
    HOTTEST,
    crops,
    flow,
    flow_to_rgb,
    gate_curves,
    heatmaps,
    loss_curves,
    segmentation,
    smoothed,
)
from midway.data.synthetic.world import CLASS_NAMES, World, WorldConfig
from midway.errors import MidwayError
from midway.nn.images import normalise

HEIGHT, WIDTH = 24, 32


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    config = WorldConfig(height=HEIGHT, width=WIDTH, num_objects=2)
    return [World(config, seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def frames(worlds) -> np.ndarray:
    return np.stack([world.frame(0.0).image for world in worlds])


def images(figure: Figure, row: int, num_columns: int) -> list[np.ndarray]:
    """What a row of a picture shows, from left to right."""
    panels = figure.axes[row * num_columns : (row + 1) * num_columns]
    return [np.asarray(axes.images[0].get_array()) for axes in panels]


def captions(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def draw(figure: Figure) -> bytes:
    png = BytesIO()
    figure.savefig(png, format="png", dpi=30)
    return png.getvalue()


def middlebury_colour(u: float, v: float) -> list[float]:
    """One pixel by the benchmark's own recipe: a table of 55 colours, interpolated."""
    table = []
    table += [(255, 255 * i // 15, 0) for i in range(15)]
    table += [(255 - 255 * i // 6, 255, 0) for i in range(6)]
    table += [(0, 255, 255 * i // 4) for i in range(4)]
    table += [(0, 255 - 255 * i // 11, 255) for i in range(11)]
    table += [(255 * i // 13, 0, 255) for i in range(13)]
    table += [(255, 0, 255 - 255 * i // 6) for i in range(6)]
    length = math.sqrt(u * u + v * v)
    place = (math.atan2(-v, -u) / math.pi + 1) / 2 * (len(table) - 1)
    first = math.floor(place)
    second = (first + 1) % len(table)
    colour = []
    for channel in range(3):
        share = place - first
        value = ((1 - share) * table[first][channel] + share * table[second][channel]) / 255
        value = 1 - length * (1 - value) if length <= 1 else 0.75 * value
        colour.append(255 * value)
    return colour


def test_flow_colours_are_those_of_the_middlebury_wheel():
    motion = np.random.default_rng(0).uniform(-1.2, 1.2, (200, 2))
    expected = [middlebury_colour(u, v) for u, v in motion]
    np.testing.assert_allclose(flow_to_rgb(7 * motion, 7), expected, atol=2)


@pytest.mark.parametrize(
    ("motion", "channels"),
    [((1, 0), "R"), ((0, 1), "RG"), ((-1, 0), "GB"), ((0, -1), "B")],
    ids=["right is red", "down is yellow", "left is cyan", "up is blue"],
)
def test_hue_tells_direction(motion, channels):
    colour = flow_to_rgb(np.array(motion, float), 1)
    bright = {name for name, value in zip("RGB", colour, strict=True) if value > 150}
    assert bright == set(channels)


def test_no_motion_is_white():
    assert flow_to_rgb(np.zeros((2, 3, 2)), 5).tolist() == np.full((2, 3, 3), 255).tolist()


def test_saturation_grows_with_length_and_what_is_beyond_the_scale_is_dark():
    lengths = np.linspace(0, 4, 9)
    colours = flow_to_rgb(np.stack([lengths, 0 * lengths], axis=1), 4).astype(int)
    saturation = colours.max(1) - colours.min(1)
    assert (np.diff(saturation) > 0).all()
    assert flow_to_rgb(np.array([9.0, 0.0]), 4).max() < colours[-1].max()


@pytest.mark.parametrize("unknown", [np.nan, np.inf, -np.inf, 1e10])
def test_unknown_flow_is_black_and_harms_no_other(unknown):
    known = np.array([[1.0, 2.0], [0.5, 0.0]], np.float32)
    colours = flow_to_rgb(np.array([*known, [unknown, 0.0]], np.float32), 2)
    assert colours[2].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(colours[:2], flow_to_rgb(known, 2))


def test_loss_curves_show_the_records_and_leave_a_gap_for_none():
    records = [
        {"step": 1, "loss": 9.0, "dino_loss": 7.0, "dense_loss": 2.0, "lr": 0.1}
        | {"dense_loss_9": 1.5, "dense_loss_12": 0.5, "samples_per_second": 3.0},
        {"step": 5, "loss": None, "dino_loss": None, "dense_loss": 1.0, "lr": 0.1}
        | {"dense_loss_9": 0.75, "dense_loss_12": None, "samples_per_second": 3.0},
    ]
    terms, levels = loss_curves(records).axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in (*terms.lines, *levels.lines)}
    gap = [5.0, pytest.approx(math.nan, nan_ok=True)]
    assert drawn == {
        "total": [[1.0, 9.0], gap],
        "invariance (DINO)": [[1.0, 7.0], gap],
        "dense": [[1.0, 2.0], [5.0, 1.0]],
        "level 9": [[1.0, 1.5], [5.0, 0.75]],
        "level 12": [[1.0, 0.5], gap],
    }
    assert list(drawn)[-2:] == ["level 9", "level 12"]
    assert [axes.get_xlabel() for axes in (terms, levels)] == ["step", "step"]
    assert all(axes.get_ylabel() and axes.get_legend() for axes in (terms, levels))


def test_a_run_by_the_dense_term_alone_has_one_curve_of_it():
    record = {"step": 1, "loss": 2.0, "dense_loss": 2.0, "dense_loss_3": 2.0}
    terms, _ = loss_curves([record]).axes
    assert [line.get_label() for line in terms.lines] == ["dense"]


def test_kinds_without_crops_are_left_out():
    none = torch.zeros(2, 0, 1, 3, 8, 8)
    views = {"motion": torch.zeros(2, 1, 1, 3, 8, 8), "globals": none, "locals": none}
    figure = crops(views, 1)
    assert captions(figure) == ["motion\nsource", "motion\ntarget"]


def test_crops_have_the_colours_they_had_before_normalisation():
    generator = torch.Generator().manual_seed(0)

    def bytes_of(num_views: int, size: int) -> torch.Tensor:
        shape = (num_views, 3, 3, size, size)
        return torch.randint(256, shape, generator=generator, dtype=torch.uint8)

    stacks = {"motion": bytes_of(2, 8), "globals": bytes_of(4, 8), "locals": bytes_of(6, 4)}
    views = {
        name: normalise((stack / 255).flatten(0, 1)).unflatten(0, (2, len(stack) // 2, 3))
        for name, stack in stacks.items()
    }
    figure = crops(views, 2)
    assert captions(figure) == [
        *("motion\nsource", "motion\ntarget"),
        *("globals 1\nsource", "globals 2\nsource", "globals 1\ntarget", "globals 2\ntarget"),
        *("locals 1\nsource", "locals 2\nsource", "locals 1\ntarget", "locals 2\ntarget"),
    ]
    assert len(figure.axes) == 2 * 10
    for pair in range(2):
        seen = [*stacks["motion"], *stacks["globals"], *stacks["locals"][[0, 1, 3, 4]]]
        for shown, stack in zip(images(figure, pair, 10), seen, strict=True):
            np.testing.assert_array_equal(shown, stack[pair].permute(1, 2, 0))


def test_a_local_crop_is_drawn_in_the_scale_of_the_global_ones():
    views = {
        "motion": torch.zeros(2, 1, 1, 3, 8, 8),
        "globals": torch.zeros(2, 2, 1, 3, 8, 8),
        "locals": torch.zeros(2, 1, 1, 3, 4, 4),
    }
    figure = crops(views, 1)
    draw(figure)
    pixels = [axes.get_window_extent().width for axes in figure.axes]
    assert pixels[-1] == pytest.approx(pixels[2] / 2)


def test_segmentation_gives_each_class_its_colour_and_leaves_other_pixels_black(worlds, frames):
    truth = np.stack([world.frame(0.0).classes for world in worlds])
    truth[0, 0] = 255
    predicted = torch.zeros(truth.shape, dtype=torch.int64)
    names = {"untrained": predicted, "trained": predicted + 1}
    figure = segmentation(torch.from_numpy(frames), truth, names, CLASS_NAMES)
    assert captions(figure) == ["image", "truth", "untrained", "trained"]
    assert legend(figure) == list(CLASS_NAMES)
    handles = figure.legends[0].legend_handles
    colours = [np.rint(255 * np.array(patch.get_facecolor()[:3])).tolist() for patch in handles]
    assert len(set(map(tuple, colours))) == len(CLASS_NAMES)
    for row in range(2):
        image, true, untrained, trained = images(figure, row, 4)
        np.testing.assert_array_equal(image, frames[row])
        for class_id, colour in enumerate(colours):
            assert (true[truth[row] == class_id] == colour).all()
        assert (true[truth[row] == 255] == 0).all()
        assert (untrained == colours[0]).all()
        assert (trained == colours[1]).all()


def test_more_classes_than_colours_are_refused_in_words(frames):
    truth = np.zeros(frames.shape[:3], np.uint8)
    with pytest.raises(
        MidwayError,
        match="segmentation picture: 9 classes cannot be distinguished by colour; give at most 8",
    ):
        segmentation(frames, truth, {}, [f"class {index}" for index in range(9)])


def test_flow_is_coloured_on_the_scale_of_the_rows_own_truth(worlds, frames):
    truth = np.stack([world.flow(0.0, 0.5).flow for world in worlds]) * [[[[1]]], [[[9]]]]
    truth[0, 3, 4] = np.nan
    flows = {"true flow": torch.from_numpy(truth)}
    flows |= {"same": torch.from_numpy(truth), "none": np.zeros((2, 3, 4, 2))}
    figure = flow(frames, torch.from_numpy(frames[::-1].copy()), flows)
    assert captions(figure) == ["source", "target", "true flow", "same", "none"]
    for row in range(2):
        source, target, true, same, none = images(figure, row, 5)
        longest = np.nanmax(np.linalg.norm(truth[row], axis=-1))
        np.testing.assert_array_equal(source, frames[row])
        np.testing.assert_array_equal(target, frames[1 - row])
        np.testing.assert_array_equal(true, flow_to_rgb(truth[row], longest))
        np.testing.assert_array_equal(same, true)
        assert (none == 255).all()
        assert figure.axes[5 * row].get_ylabel() == f"{longest:.1f} px"


def test_flow_of_patches_covers_their_pixels(frames):
    truth = np.zeros((2, HEIGHT, WIDTH, 2))
    patches = np.zeros((2, 3, 4, 2))
    patches[1, 2, 1] = (1, 0)
    figure = flow(frames, frames, {"true flow": truth, "network": patches})
    coloured = (images(figure, 1, 4)[3] != 255).any(-1)
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[16:24, 8:16] = True
    np.testing.assert_array_equal(coloured, expected)


def test_the_legend_of_flow_is_a_wheel_that_is_red_at_its_right(frames):
    truth = np.zeros((2, HEIGHT, WIDTH, 2))
    drawn = flow(frames, frames, {"flow": truth}, max_pixels=7.0)
    assert drawn.axes[0].get_ylabel() == "7.0 px"
    wheel = np.asarray(drawn.axes[-1].images[0].get_array())
    middle = len(wheel) // 2
    assert wheel[middle, -1].tolist() == [255, 0, 0, 255]
    assert wheel[middle, middle].tolist() == [255, 255, 255, 255]
    assert wheel[0, 0, 3] == 0


def test_heatmaps_mark_the_patch_its_true_place_and_cover_the_target_smoothly(frames):
    heat = np.full((2, 3, 4), -0.1)
    heat[0, 1, 2], heat[1, 0, 0] = 0.5, 0.25
    points = np.array([[7.4, 8.0], [31.0, 23.0]])
    true_points = torch.tensor([[20.0, 12.0], [40.0, -3.0]])
    figure = heatmaps(
        frames, frames[::-1], points, {"trained": torch.from_numpy(heat)}, true_points
    )
    assert captions(figure) == ["source", "trained"]
    assert len(legend(figure)) == 4
    corners, hottest = [(-0.5, 7.5), (23.5, 15.5)], [[19.5, 11.5], [3.5, 3.5]]
    bars = figure.axes[4:]
    for row in range(2):
        source, target = figure.axes[2 * row : 2 * row + 2]
        np.testing.assert_array_equal(source.images[0].get_array(), frames[row])
        for axes in (source, target):
            (square,) = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
            assert square.get_xy() == corners[row]
            assert (square.get_width(), square.get_height()) == (8, 8)
        peak, place = target.lines
        assert peak.get_xydata().tolist() == [hottest[row]]
        assert peak.get_marker() == HOTTEST["marker"]
        assert place.get_xydata().tolist() == [true_points[row].tolist()]
        assert not source.lines
        assert target.get_xlim() == source.get_xlim()
        assert target.get_ylim() == source.get_ylim()
        grey, cover = (np.asarray(image.get_array()) for image in target.images)
        np.testing.assert_allclose(grey[..., 0], frames[1 - row].mean(-1), atol=1)
        np.testing.assert_array_equal(cover, smoothed(heat[row], (HEIGHT, WIDTH)))
        opacity = np.asarray(target.images[1].get_alpha())
        assert ((opacity > 0) == (cover > 0)).all()
        labels = [label.get_text() for label in bars[row].get_xticklabels()]
        assert labels == ["0", "cosine", f"{heat[row].max():.2f}"]


def test_a_smoothed_map_keeps_its_range_and_has_its_peak_in_the_hottest_patch():
    heat = np.zeros((3, 4), np.float32)
    heat[1, 2] = 0.5
    large = smoothed(heat, (HEIGHT, WIDTH))
    assert large.shape == (HEIGHT, WIDTH)
    assert 0 <= large.min() < large.max() <= 0.5
    row, column = np.unravel_index(large.argmax(), large.shape)
    assert (row // 8, column // 8) == (1, 2)
    # Neighbouring pixels differ little: no steps at the borders of patches.
    assert np.abs(np.diff(large, axis=1)).max() < 0.15


def test_maps_of_networks_with_other_grids_stand_side_by_side(frames):
    maps = {"one": np.eye(3, 4)[None].repeat(2, 0), "two\nlevel 3": np.ones((2, 6, 8))}
    figure = heatmaps(frames, frames, np.full((2, 2), 9.0), maps)
    assert captions(figure) == ["source", "one", "two\nlevel 3"]
    sizes = [[p.get_width() for p in axes.patches] for axes in figure.axes[:3]]
    assert sizes == [[8], [8], [4]]
    assert len(legend(figure)) == 3


def test_a_map_without_heat_covers_nothing(frames):
    points = np.zeros((2, 2))
    figure = heatmaps(frames, frames, points, {"dead": np.zeros((2, 3, 4))}, points)
    assert (figure.axes[1].images[1].get_alpha() == 0).all()
    draw(figure)


def test_long_captions_get_smaller_letters_and_then_lose_their_middle(frames):
    columns = dict.fromkeys(("a", "b" * 12, "first" + "x" * 60 + "last"), frames)
    figure, grid = panels(columns, width=3.0)
    texts = captions(figure)
    assert texts[:2] == ["a", "b" * 12]
    assert texts[2].startswith("firs")
    assert texts[2].endswith("last")
    assert len(texts[2]) < 20
    assert len({axes.title.get_fontsize() for axes in grid[0]}) == 1
    draw(figure)
    boxes = [axes.title.get_window_extent() for axes in grid[0]]
    assert all(one.x1 <= two.x0 for one, two in pairwise(boxes))


def test_a_figure_for_phones_is_as_narrow_as_asked_and_stacks_its_plots(frames):
    record = {"step": 1, "loss": 2.0, "dino_loss": 1.0, "dense_loss": 1.0, "dense_loss_3": 1.0}
    truth = {"flow": np.zeros((2, HEIGHT, WIDTH, 2))}
    figures = [
        loss_curves([record], width=3.7),
        gate_curves([0.0, 1.0], {3: np.ones((2, 2)), 6: np.ones((2, 2))}, width=3.7),
        flow(frames, frames, truth, width=3.7),
        segmentation(frames, np.zeros((2, HEIGHT, WIDTH), int), {}, CLASS_NAMES, width=3.7),
    ]
    assert all(figure.get_size_inches()[0] <= 3.71 for figure in figures)
    for figure in figures[:2]:
        first, second = (axes.get_subplotspec().rowspan.start for axes in figure.axes[:2])
        assert (first, second) == (0, 1)


def test_pictures_leave_the_settings_of_matplotlib_alone_and_can_be_drawn(frames):
    before = dict(mpl.rcParams)
    record = {"step": 1, "loss": 2.0, "dino_loss": 1.0, "dense_loss": 1.0, "dense_loss_3": 1.0}
    truth = np.zeros((2, HEIGHT, WIDTH, 2))
    for figure in (loss_curves([record]), flow(frames, frames, {"flow": truth})):
        assert draw(figure).startswith(b"\x89PNG")
    assert dict(mpl.rcParams) == before
