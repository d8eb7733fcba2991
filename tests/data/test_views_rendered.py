"""Views show what Pillow shows, on either way to make them, whatever they are batched with."""

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from midway.data.colour import IMAGENET_STD, normalise
from midway.data.render import Views, render_views
from midway.data.views import ViewParameters, ViewsConfig, stack_views
from midway.data.views_gpu import render_together
from tests.data.drawn_views import (
    CONFIG,
    GLOBALS,
    LOCALS,
    MOTION,
    Frames,
    assert_same_parameters,
    draw_each,
    draw_many,
    noise_frames,
    windows_of,
)

WHICH_FRAME = [0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1]
Render = Callable[[ViewsConfig, tuple[Tensor, Tensor], ViewParameters], Views]


def render_as_on_a_gpu(
    config: ViewsConfig,
    windows: tuple[Tensor, Tensor],
    parameters: ViewParameters,
    dtype: torch.dtype = torch.float32,
) -> Views:
    """The way that other devices than a CPU take, with the work done on the CPU."""
    made = []
    for window, views, size in (
        (windows[0], MOTION, config.motion_size),
        (windows[1], GLOBALS, config.global_size),
        (windows[1], LOCALS, config.local_size),
    ):
        boxes, flip = parameters.boxes[views], parameters.flip[views]
        out = torch.empty(*flip.shape, 3, *size)
        render_together(window, boxes, flip, parameters.colour.flatten(views), out, dtype=dtype)
        made.append(out)
    return Views(motion=made[0], globals=made[1], locals=made[2])


@pytest.fixture(params=[render_views, render_as_on_a_gpu], ids=lambda way: way.__name__)
def render(request: pytest.FixtureRequest) -> Render:
    return request.param


def real_frames(shared_data: Path, num_pairs: int) -> Frames:
    files = sorted((shared_data / "camvid" / "train").glob("0006R0*.png"))[: num_pairs + 1]
    images = [np.array(Image.open(file)) for file in files]
    return list(pairwise(images))


def without_colour(parameters: ViewParameters) -> ViewParameters:
    """The same boxes and flips, with every photometric part switched off."""
    colour = parameters.colour
    return dataclasses.replace(
        parameters,
        colour=dataclasses.replace(
            colour,
            jitter=np.zeros_like(colour.jitter),
            grey=np.zeros_like(colour.grey),
            blur_sigma=np.zeros_like(colour.blur_sigma),
            solarise=np.zeros_like(colour.solarise),
        ),
    )


def in_order(views: Views) -> list[Tensor]:
    return [*views.motion, *views.globals, *views.locals]


def levels_apart(first: Views, second: Views) -> Tensor:
    """Every difference between two views, in levels of 255."""
    deviations = 255 * torch.tensor(IMAGENET_STD)[:, None, None]
    pairs = zip(in_order(first), in_order(second), strict=True)
    return torch.cat([((a - b) * deviations).abs().flatten() for a, b in pairs])


def test_views_without_colour_are_pillows_crops_of_the_frames(
    render: Render, shared_data: Path
) -> None:
    frames = real_frames(shared_data, 1)
    drawn = draw_each(CONFIG, 360, 480, 1)
    windows, plain = windows_of(drawn, frames), without_colour(stack_views(drawn))
    views = in_order(render(CONFIG, windows, plain))
    sizes = [CONFIG.motion_size] * 2 + [CONFIG.global_size] * 4 + [CONFIG.local_size] * 6
    corners = drawn[0].windows[[0] * 2 + [1] * 10, :2]
    boxes, flips = drawn[0].boxes.tolist(), drawn[0].flip.tolist()
    for view, (height, width), corner, frame, box, flip in zip(
        views, sizes, corners.tolist(), WHICH_FRAME, boxes, flips, strict=True
    ):
        top, left = corner[0] + box[0], corner[1] + box[1]
        crop = Image.fromarray(frames[0][frame])
        crop = crop.crop((left, top, left + box[3], top + box[2]))
        crop = crop.resize((width, height), Image.Resampling.BICUBIC)
        if flip:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        expected = normalise(torch.from_numpy(np.array(crop)).permute(2, 0, 1)[None] / 255)
        torch.testing.assert_close(view, expected, atol=2 / 255 / 0.22, rtol=0)


def test_both_ways_make_the_same_views(shared_data: Path) -> None:
    drawn = draw_each(CONFIG, 360, 480, 8)
    windows, parameters = windows_of(drawn, real_frames(shared_data, 8)), stack_views(drawn)
    exact = render_as_on_a_gpu(CONFIG, windows, parameters)
    # The CPU rounds to bytes after either axis of the resize; a factor of up to 1.4 for brightness
    # and another for contrast makes more of it.
    on_cpu = levels_apart(render_views(CONFIG, windows, parameters), exact)
    assert on_cpu.max() < 5
    assert on_cpu.mean() < 0.4
    half = levels_apart(render_as_on_a_gpu(CONFIG, windows, parameters, torch.half), exact)
    assert half.max() < 1
    assert half.mean() < 0.06


def test_views_come_source_first_in_the_documented_shapes(render: Render) -> None:
    black = np.zeros((96, 128, 3), dtype=np.uint8)
    drawn = draw_each(CONFIG, 96, 128, 2)
    windows = windows_of(drawn, [(black, black + 255)] * 2)
    views = render(CONFIG, windows, without_colour(stack_views(drawn)))
    assert views.motion.shape == (2, 2, 3, 48, 40)
    assert views.globals.shape == (4, 2, 3, 32, 36)
    assert views.locals.shape == (6, 2, 3, 16, 20)
    for kind in (views.motion, views.globals, views.locals):
        source, target = kind.chunk(2)
        assert kind.dtype == torch.float32
        assert kind.is_contiguous()
        assert (source < 0).all()
        assert (target > 0).all()


def test_a_pair_looks_the_same_alone_and_in_a_batch(render: Render) -> None:
    frames, drawn = noise_frames(4, 96, 128), draw_each(CONFIG, 96, 128, 4)
    batch = in_order(render(CONFIG, windows_of(drawn, frames), stack_views(drawn)))
    for i in range(4):
        one = slice(i, i + 1)
        windows = windows_of(drawn[one], frames[one])
        alone = render(CONFIG, windows, stack_views(drawn[one]))
        for together, single in zip(batch, in_order(alone), strict=True):
            torch.testing.assert_close(together[one], single, atol=1e-4, rtol=0)


def test_rendering_again_gives_the_same_and_leaves_its_input_alone(render: Render) -> None:
    drawn = draw_each(CONFIG, 96, 128, 2)
    windows, parameters = windows_of(drawn, noise_frames(2, 96, 128)), stack_views(drawn)
    kept = [window.clone() for window in windows]
    first = in_order(render(CONFIG, windows, parameters))
    for view, again in zip(first, in_order(render(CONFIG, windows, parameters)), strict=True):
        assert torch.equal(view, again)
    assert all(torch.equal(window, before) for window, before in zip(windows, kept, strict=True))
    assert_same_parameters(parameters, draw_many(CONFIG, 96, 128, 2))


def test_views_may_go_through_a_network_that_learns() -> None:
    drawn = draw_each(CONFIG, 96, 128, 1)
    views = render_views(CONFIG, windows_of(drawn, noise_frames(1, 96, 128)), stack_views(drawn))
    weight = torch.ones(3, 1, 1, requires_grad=True)
    (views.globals * weight).sum().backward()
    torch.testing.assert_close(weight.grad.flatten(), views.globals.sum((0, 1, 3, 4)))


def test_mixed_precision_around_it_does_not_coarsen_the_views() -> None:
    drawn = draw_each(CONFIG, 96, 128, 2)
    windows, parameters = windows_of(drawn, noise_frames(2, 96, 128)), stack_views(drawn)
    expected = in_order(render_views(CONFIG, windows, parameters))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        views = in_order(render_views(CONFIG, windows, parameters))
    for view, same in zip(views, expected, strict=True):
        assert torch.equal(view, same)


def test_rendering_on_a_device_never_asks_it_for_a_value() -> None:
    drawn = draw_each(CONFIG, 96, 128, 2)
    _, initial = windows_of(drawn, noise_frames(2, 96, 128))
    parameters = stack_views(drawn)
    out = torch.empty(6, 2, 3, 16, 20, device="meta")
    boxes, flip, colour = (
        parameters.boxes[LOCALS],
        parameters.flip[LOCALS],
        parameters.colour.flatten(LOCALS),
    )
    render_together(initial.to("meta"), boxes, flip, colour, out, dtype=torch.half)
    # A meta tensor has no values: had one been asked for, it would have said so.
    with pytest.raises(RuntimeError, match="meta"):
        out.sum().item()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_makes_the_same_views(shared_data: Path) -> None:
    drawn = draw_each(CONFIG, 360, 480, 8)
    windows, parameters = windows_of(drawn, real_frames(shared_data, 8)), stack_views(drawn)
    exact = render_as_on_a_gpu(CONFIG, windows, parameters)
    motion, initial = (window.cuda() for window in windows)
    views = render_views(CONFIG, (motion, initial), parameters)
    on_gpu = Views(**{name: value.cpu() for name, value in vars(views).items()})
    assert levels_apart(on_gpu, exact).max() < 1


def test_frames_of_a_few_pixels_and_no_local_crops_work(render: Render) -> None:
    config = dataclasses.replace(CONFIG, num_local=0)
    drawn = draw_each(config, 2, 3, 5)
    views = render(config, windows_of(drawn, noise_frames(5, 2, 3)), stack_views(drawn))
    assert views.locals.shape == (0, 5, 3, 16, 20)
    assert views.globals.isfinite().all()
