"""Views lie where the recipe says, show what Pillow shows, and depend on their seed alone."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from midway.data.colour import ColourParameters, normalise
from midway.data.views import (
    ViewParameters,
    Views,
    ViewsConfig,
    draw_boxes,
    draw_views,
    render_views,
    stack_views,
)
from midway.errors import MidwayError

CONFIG = ViewsConfig(motion_size=(48, 40), global_size=(32, 36), local_size=(16, 20), num_local=3)
MOTION, GLOBALS, LOCALS = slice(0, 2), slice(2, 6), slice(6, None)
FRAME_SIZES = [(720, 1280), (96, 128)]


def draw_many(config: ViewsConfig, height: int, width: int, num_draws: int) -> ViewParameters:
    generator = torch.Generator().manual_seed(0)
    return stack_views([draw_views(config, height, width, generator) for _ in range(num_draws)])


def initial_boxes(config: ViewsConfig, height: int, width: int, num_draws: int) -> Tensor:
    """Crops that the global and local ones of `draw_many` come from: its second draw each time."""
    generator = torch.Generator().manual_seed(0)
    areas = torch.tensor((config.motion_area, config.initial_area), dtype=torch.float64)
    initial = []
    for _ in range(num_draws):
        state = generator.get_state()
        initial.append(draw_boxes((height, width), areas, config.aspect, generator)[1])
        generator.set_state(state)
        draw_views(config, height, width, generator)
    return torch.stack(initial)


def frames(num_pairs: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (2, num_pairs, 3, height, width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def without_colour(parameters: ViewParameters) -> ViewParameters:
    """The same boxes and flips, with every photometric part switched off."""
    colour = parameters.colour
    return dataclasses.replace(
        parameters,
        colour=dataclasses.replace(
            colour,
            jitter=torch.zeros_like(colour.jitter),
            grey=torch.zeros_like(colour.grey),
            blur_sigma=torch.zeros_like(colour.blur_sigma),
            solarise=torch.zeros_like(colour.solarise),
        ),
    )


def in_order(views: Views) -> list[Tensor]:
    return [*views.motion, *views.globals, *views.locals]


def assert_same_parameters(first: ViewParameters, second: ViewParameters) -> None:
    for name in ("boxes", "flip"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    for field in dataclasses.fields(ColourParameters):
        assert torch.equal(getattr(first.colour, field.name), getattr(second.colour, field.name))


def assert_inside(inner: Tensor, outer: Tensor) -> None:
    assert (inner[..., 2:] >= 1).all()
    assert (inner[..., :2] >= outer[..., :2]).all()
    assert (inner[..., :2] + inner[..., 2:] <= outer[..., :2] + outer[..., 2:]).all()


def assert_shares(boxes: Tensor, whole: Tensor | float, area: tuple[float, float]) -> None:
    """Areas and aspects in range, as far as integer sides allow."""
    height, width = boxes[..., 2].double(), boxes[..., 3].double()
    assert ((height + 0.5) * (width + 0.5) >= area[0] * whole).all()
    assert ((height - 0.5) * (width - 0.5) <= area[1] * whole).all()
    assert ((width + 0.5) / (height - 0.5) >= 3 / 4).all()
    assert ((width - 0.5) / (height + 0.5) <= 4 / 3).all()


@pytest.mark.parametrize(("height", "width"), FRAME_SIZES)
def test_boxes_have_the_recipes_areas_and_aspects_and_lie_inside(height: int, width: int) -> None:
    config = ViewsConfig()
    drawn = draw_many(config, height, width, 300)
    frame = torch.tensor([0, 0, height, width])
    initial = initial_boxes(config, height, width, 300)
    initial_area = initial[:, 2] * initial[:, 3]
    assert_inside(drawn.boxes[MOTION], frame)
    assert_inside(initial, frame)
    assert_inside(drawn.boxes[2:], initial)
    assert_shares(drawn.boxes[MOTION], height * width, config.motion_area)
    assert_shares(initial, height * width, config.initial_area)
    assert_shares(drawn.boxes[GLOBALS], initial_area, config.global_area)
    assert_shares(drawn.boxes[LOCALS], initial_area, config.local_area)


def test_areas_are_uniform_and_aspects_log_uniform_and_places_uniform() -> None:
    areas = torch.tensor([[0.05, 0.2]], dtype=torch.float64).expand(20_000, 2)
    boxes = draw_boxes((2000, 3000), areas, (0.5, 2.0), torch.Generator().manual_seed(0)).double()
    top, left, height, width = boxes.unbind(1)
    for value, low, high in (
        (height * width / 6e6, 0.05, 0.2),
        ((width / height).log(), -math.log(2), math.log(2)),
        (top / (2000 - height), 0, 1),
        (left / (3000 - width), 0, 1),
    ):
        uniform = (value - low) / (high - low)
        quantiles = torch.quantile(uniform, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64))
        expected = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
        torch.testing.assert_close(quantiles, expected, atol=0.02, rtol=0)


def test_boxes_reach_every_border_of_the_frame() -> None:
    areas = torch.tensor([[0.2, 0.3]], dtype=torch.float64).expand(500, 2)
    boxes = draw_boxes((8, 9), areas, (3 / 4, 4 / 3), torch.Generator().manual_seed(0))
    assert boxes[:, :2].amin(0).tolist() == [0, 0]
    assert (boxes[:, :2] + boxes[:, 2:]).amax(0).tolist() == [8, 9]


def test_a_frame_too_narrow_for_any_box_gives_the_largest_central_one() -> None:
    areas = torch.tensor([[0.9, 1.0]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    wide = draw_boxes((30, 400), areas, (3 / 4, 4 / 3), generator)
    assert wide.tolist() == [[0, 180, 30, 40]]
    tall = draw_boxes((400, 30), areas, (3 / 4, 4 / 3), generator)
    assert tall.tolist() == [[180, 0, 40, 30]]


def test_both_frames_share_motion_and_global_boxes_and_flips_but_not_local_ones() -> None:
    drawn = draw_many(ViewsConfig(), 96, 128, 200)
    assert torch.equal(drawn.boxes[0], drawn.boxes[1])
    assert torch.equal(drawn.boxes[2:4], drawn.boxes[4:6])
    assert torch.equal(drawn.flip[2:4], drawn.flip[4:6])
    assert not drawn.flip[MOTION].any()
    assert not torch.equal(drawn.boxes[2], drawn.boxes[3])
    source, target = drawn.boxes[LOCALS].chunk(2)
    assert (source != target).any(2).float().mean() > 0.95


def test_flips_blur_and_solarisation_come_as_often_as_their_kind_says() -> None:
    num_draws = 1500
    drawn = draw_many(CONFIG, 96, 128, num_draws)
    tolerance = 5 * 0.5 / math.sqrt(num_draws)
    flips = drawn.flip.float().mean(1)
    torch.testing.assert_close(flips[2:], torch.full_like(flips[2:], 0.5), atol=tolerance, rtol=0)
    assert (drawn.flip[2] != drawn.flip[3]).float().mean() > 0.4
    blurred = (drawn.colour.blur_sigma > 0).float().mean(1)
    expected = torch.tensor([1.0, 0.1] * 3 + [0.5] * 6)
    torch.testing.assert_close(blurred, expected, atol=tolerance, rtol=0)
    solarised = drawn.colour.solarise.float().mean(1)
    expected = torch.tensor([0.0, 0.2] * 3 + [0.0] * 6)
    torch.testing.assert_close(solarised, expected, atol=tolerance, rtol=0)
    assert (solarised[expected == 0] == 0).all()
    assert (drawn.colour.factors[0] != drawn.colour.factors[1]).any(1).all()


def test_the_seed_alone_decides() -> None:
    def draw(seed: int) -> ViewParameters:
        torch.rand(3)
        return draw_views(CONFIG, 96, 128, torch.Generator().manual_seed(seed))

    assert_same_parameters(draw(5), draw(5))
    assert not torch.equal(draw(5).boxes, draw(6).boxes)


def test_views_without_colour_are_pillows_crops(shared_data: Path) -> None:
    files = sorted((shared_data / "camvid" / "train").glob("0006R0*.png"))[:2]
    pair = [Image.open(file) for file in files]
    source, target = (torch.from_numpy(np.array(frame)).permute(2, 0, 1)[None] for frame in pair)
    drawn = without_colour(
        stack_views([draw_views(CONFIG, 360, 480, torch.Generator().manual_seed(3))])
    )
    views = in_order(render_views(CONFIG, source, target, drawn))
    sizes = [CONFIG.motion_size] * 2 + [CONFIG.global_size] * 4 + [CONFIG.local_size] * 6
    which_frame = [0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1]
    boxes, flips = drawn.boxes[:, 0].tolist(), drawn.flip[:, 0].tolist()
    for view, (height, width), frame, box, flip in zip(
        views, sizes, which_frame, boxes, flips, strict=True
    ):
        top, left, rows, columns = box
        crop = pair[frame].crop((left, top, left + columns, top + rows))
        crop = crop.resize((width, height), Image.Resampling.BICUBIC)
        if flip:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        expected = normalise(torch.from_numpy(np.array(crop)).permute(2, 0, 1)[None] / 255)
        torch.testing.assert_close(view, expected, atol=2 / 255 / 0.22, rtol=0)


def test_views_come_source_first_in_the_documented_shapes() -> None:
    black = torch.zeros(2, 3, 96, 128, dtype=torch.uint8)
    drawn = without_colour(draw_many(CONFIG, 96, 128, 2))
    views = render_views(CONFIG, black, black + 255, drawn)
    assert views.motion.shape == (2, 2, 3, 48, 40)
    assert views.globals.shape == (4, 2, 3, 32, 36)
    assert views.locals.shape == (6, 2, 3, 16, 20)
    for kind in (views.motion, views.globals, views.locals):
        source, target = kind.chunk(2)
        assert kind.dtype == torch.float32
        assert (source < 0).all()
        assert (target > 0).all()


def test_a_pair_looks_the_same_alone_and_in_a_batch() -> None:
    source, target = frames(4, 96, 128)
    generator = torch.Generator().manual_seed(2)
    drawn = [draw_views(CONFIG, 96, 128, generator) for _ in range(4)]
    batch = in_order(render_views(CONFIG, source, target, stack_views(drawn)))
    for i, parameters in enumerate(drawn):
        one = slice(i, i + 1)
        alone = render_views(CONFIG, source[one], target[one], stack_views([parameters]))
        for together, single in zip(batch, in_order(alone), strict=True):
            torch.testing.assert_close(together[one], single, atol=1e-5, rtol=0)


def test_rendering_leaves_frames_and_parameters_alone() -> None:
    source, target = frames(2, 96, 128)
    kept = source.clone(), target.clone()
    drawn, again = draw_many(CONFIG, 96, 128, 2), draw_many(CONFIG, 96, 128, 2)
    render_views(CONFIG, source, target, drawn)
    assert torch.equal(source, kept[0])
    assert torch.equal(target, kept[1])
    assert_same_parameters(drawn, again)


def test_mixed_precision_around_it_does_not_coarsen_the_views() -> None:
    source, target = frames(2, 96, 128)
    drawn = draw_many(CONFIG, 96, 128, 2)
    expected = in_order(render_views(CONFIG, source, target, drawn))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        views = in_order(render_views(CONFIG, source, target, drawn))
    for view, same in zip(views, expected, strict=True):
        assert torch.equal(view, same)


def test_frames_of_a_few_pixels_and_no_local_crops_work() -> None:
    config = dataclasses.replace(CONFIG, num_local=0)
    source, target = frames(5, 2, 3)
    views = render_views(config, source, target, draw_many(config, 2, 3, 5))
    assert views.locals.shape == (0, 5, 3, 16, 20)
    assert views.globals.isfinite().all()


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
