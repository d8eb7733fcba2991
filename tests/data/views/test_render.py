"""Both renderers agree with Pillow, and a view does not depend on the rest of its batch."""

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from midway.data.views.render import example_clips, render_together, render_views, stack_windows
from midway.data.views.spec import ClipSpec, ViewParameters, draw_views, stack_views
from midway.methods.base import build_method
from midway.nn.images import IMAGENET_STD, normalise
from midway.registry import available, find
from tests.data.views.drawn_views import (
    CONFIG,
    LOCALS,
    SPEC,
    Frames,
    assert_same_parameters,
    draw_each,
    draw_many,
    noise_frames,
    regions_of,
)

METHODS = available("midway.methods")
WHICH_FRAME = [0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1]
Views = dict[str, Tensor]
Render = Callable[[ClipSpec, dict[str, Tensor], ViewParameters], Views]


def render_as_on_a_gpu(
    spec: ClipSpec,
    regions: dict[str, Tensor],
    parameters: ViewParameters,
    dtype: torch.dtype = torch.float32,
) -> Views:
    """The way that other devices than a CPU take, with the work done on the CPU."""
    made = {}
    for name, crops in spec.slices.items():
        view = spec.views[name]
        boxes, flip = parameters.boxes[crops], parameters.flip[crops]
        out = torch.empty(*flip.shape, 3, *view.size)
        colour = parameters.colour.flatten(crops)
        render_together(regions[view.region], boxes, flip, colour, out, dtype=dtype)
        made[name] = out.unflatten(0, (spec.num_frames, view.count))
    return made


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
    return [crop for view in views.values() for crop in view.flatten(0, 1)]


def levels_apart(first: Views, second: Views) -> Tensor:
    """Every difference between two views, in levels of 255."""
    deviations = 255 * torch.tensor(IMAGENET_STD)[:, None, None]
    pairs = zip(in_order(first), in_order(second), strict=True)
    return torch.cat([((a - b) * deviations).abs().flatten() for a, b in pairs])


def test_views_without_colour_are_pillows_crops_of_the_frames(
    render: Render, shared_data: Path
) -> None:
    frames = real_frames(shared_data, 1)
    drawn = draw_each(SPEC, 360, 480, 1)
    regions, plain = regions_of(drawn, frames), without_colour(stack_views(drawn))
    views = in_order(render(SPEC, regions, plain))
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
    drawn = draw_each(SPEC, 360, 480, 8)
    regions, parameters = regions_of(drawn, real_frames(shared_data, 8)), stack_views(drawn)
    exact = render_as_on_a_gpu(SPEC, regions, parameters)
    # The CPU rounds to bytes after either axis of the resize; a factor of up to 1.4 for brightness
    # and another for contrast makes more of it.
    on_cpu = levels_apart(render_views(SPEC, regions, parameters), exact)
    assert on_cpu.max() < 5
    assert on_cpu.mean() < 0.4
    half = levels_apart(render_as_on_a_gpu(SPEC, regions, parameters, torch.half), exact)
    assert half.max() < 1
    assert half.mean() < 0.06


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


def test_views_come_source_first_in_the_documented_shapes(render: Render) -> None:
    black = np.zeros((96, 128, 3), dtype=np.uint8)
    drawn = draw_each(SPEC, 96, 128, 2)
    regions = regions_of(drawn, [(black, black + 255)] * 2)
    views = render(SPEC, regions, without_colour(stack_views(drawn)))
    assert list(views) == ["motion", "globals", "locals"]
    assert views["motion"].shape == (2, 1, 2, 3, 48, 40)
    assert views["globals"].shape == (2, 2, 2, 3, 32, 36)
    assert views["locals"].shape == (2, 3, 2, 3, 16, 20)
    for kind in views.values():
        source, target = kind
        assert kind.dtype == torch.float32
        assert kind.is_contiguous()
        assert (source < 0).all()
        assert (target > 0).all()


def test_a_pair_is_rendered_equally_by_itself_and_in_a_batch(render: Render) -> None:
    frames, drawn = noise_frames(4, 96, 128), draw_each(SPEC, 96, 128, 4)
    batch = in_order(render(SPEC, regions_of(drawn, frames), stack_views(drawn)))
    for i in range(4):
        one = slice(i, i + 1)
        regions = regions_of(drawn[one], frames[one])
        alone = render(SPEC, regions, stack_views(drawn[one]))
        for together, single in zip(batch, in_order(alone), strict=True):
            torch.testing.assert_close(together[one], single, atol=1e-4, rtol=0)


def test_rendering_again_gives_the_same_and_leaves_its_input_alone(render: Render) -> None:
    drawn = draw_each(SPEC, 96, 128, 2)
    regions, parameters = regions_of(drawn, noise_frames(2, 96, 128)), stack_views(drawn)
    kept = {name: region.clone() for name, region in regions.items()}
    first = in_order(render(SPEC, regions, parameters))
    for view, again in zip(first, in_order(render(SPEC, regions, parameters)), strict=True):
        assert torch.equal(view, again)
    assert all(torch.equal(region, kept[name]) for name, region in regions.items())
    assert_same_parameters(parameters, draw_many(SPEC, 96, 128, 2))


def test_views_may_go_through_a_network_that_learns() -> None:
    drawn = draw_each(SPEC, 96, 128, 1)
    views = render_views(SPEC, regions_of(drawn, noise_frames(1, 96, 128)), stack_views(drawn))
    weight = torch.ones(3, 1, 1, requires_grad=True)
    (views["globals"] * weight).sum().backward()
    torch.testing.assert_close(weight.grad.flatten(), views["globals"].sum((0, 1, 2, 4, 5)))


def test_mixed_precision_around_it_does_not_coarsen_the_views() -> None:
    drawn = draw_each(SPEC, 96, 128, 2)
    regions, parameters = regions_of(drawn, noise_frames(2, 96, 128)), stack_views(drawn)
    expected = in_order(render_views(SPEC, regions, parameters))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        views = in_order(render_views(SPEC, regions, parameters))
    for view, same in zip(views, expected, strict=True):
        assert torch.equal(view, same)


def test_rendering_on_a_device_never_asks_it_for_a_value() -> None:
    drawn = draw_each(SPEC, 96, 128, 2)
    initial = regions_of(drawn, noise_frames(2, 96, 128))["initial"]
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
    drawn = draw_each(SPEC, 360, 480, 8)
    regions, parameters = regions_of(drawn, real_frames(shared_data, 8)), stack_views(drawn)
    exact = render_as_on_a_gpu(SPEC, regions, parameters)
    on_device = {name: region.cuda() for name, region in regions.items()}
    views = render_views(SPEC, on_device, parameters)
    on_gpu = {name: view.cpu() for name, view in views.items()}
    assert levels_apart(on_gpu, exact).max() < 1


def test_frames_of_a_few_pixels_and_no_local_crops_work(render: Render) -> None:
    spec = dataclasses.replace(CONFIG, num_local=0).spec()
    drawn = draw_each(spec, 2, 3, 5)
    views = render(spec, regions_of(drawn, noise_frames(5, 2, 3)), stack_views(drawn))
    assert views["locals"].shape == (2, 0, 5, 3, 16, 20)
    assert views["globals"].isfinite().all()


def spec_of(method: str) -> ClipSpec:
    """The samples that a method declares, at the sizes of its tests."""
    with torch.device("meta"):
        return build_method(find("midway.methods", method).METHOD.Config.tiny()).spec


@pytest.mark.parametrize("method", METHODS)
def test_the_views_of_many_methods_are_drawn_cut_stacked_and_rendered(
    render: Render, method: str
) -> None:
    spec = spec_of(method)
    rng = np.random.default_rng(0)
    frame_sizes = [(120, 160), (90, 200)]
    drawn = [draw_views(spec, *size, rng) for size in frame_sizes]
    frames = [noise_frames(1, *size, num_frames=spec.num_frames)[0] for size in frame_sizes]
    views = render(spec, regions_of(drawn, frames, spec), stack_views(drawn))
    assert list(views) == list(spec.views)
    for name, made in views.items():
        view = spec.views[name]
        assert made.shape == (spec.num_frames, view.count, 2, 3, *view.size)
        assert made.dtype == torch.float32
        assert made.isfinite().all()
        assert (made.flatten(1).std(1) > 0.1).all()


def test_aligned_views_of_a_still_clip_are_the_same_in_every_frame(render: Render) -> None:
    spec = spec_of("videomae")
    drawn = draw_each(spec, 120, 160, 1)
    ((frame,),) = noise_frames(1, 120, 160, num_frames=1)
    frames = [(frame,) * spec.num_frames]
    clip = render(spec, regions_of(drawn, frames, spec), stack_views(drawn))["clip"]
    torch.testing.assert_close(clip, clip[:1].expand_as(clip), atol=1e-4, rtol=0)


def test_example_clips_have_the_shapes_that_a_method_declares() -> None:
    spec = dataclasses.replace(spec_of("dora"), signals={"action": (7,), "speed": ()})
    first, again = (
        example_clips(spec, 3, generator=torch.Generator().manual_seed(0)) for _ in range(2)
    )
    assert len(first) == 3
    assert first.seconds.shape == (4, 3)
    assert {name: tuple(view.shape) for name, view in first.views.items()} == {
        "global": (4, 1, 3, 3, 64, 64),
        "locals": (4, 2, 3, 3, 32, 32),
    }
    assert first.signals["action"].shape == (4, 3, 7)
    assert first.signals["speed"].shape == (4, 3)
    for name, view in first.views.items():
        assert torch.equal(view, again.views[name])
    with torch.device("meta"):
        assert all(view.is_meta for view in example_clips(spec, 1).views.values())
