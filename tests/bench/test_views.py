"""The plain views equal ours up to rounding, and the timings are consistent."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from midway.bench.plain.views import plain_views
from midway.bench.views import FramePair, time_views
from midway.data.views.pair_crops import ViewsConfig
from midway.data.views.render import render_views, stack_windows
from midway.data.views.spec import cut_regions, draw_views, stack_views

CONFIG = ViewsConfig(motion_size=(64, 48), global_size=(64, 64), local_size=(32, 32), num_local=4)
SPEC = CONFIG.spec()


@pytest.fixture(scope="module")
def pairs(shared_data: Path) -> list[FramePair]:
    files = sorted((shared_data / "camvid" / "train").glob("0006R0*.png"))[:4]
    images = [np.array(Image.open(file)) for file in files]
    return list(pairwise(images))


def test_plain_views_are_ours_as_far_as_bytes_allow(pairs: list[FramePair]) -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_views(SPEC, 360, 480, rng) for _ in pairs]
    cuts = [cut_regions(SPEC, draw, pair) for draw, pair in zip(drawn, pairs, strict=True)]
    regions = {name: stack_windows([cut[name] for cut in cuts]) for name in SPEC.regions}
    views = render_views(SPEC, regions, stack_views(drawn))
    ours = [crop for view in views.values() for crop in view.flatten(0, 1)]
    for i, (draw, pair) in enumerate(zip(drawn, pairs, strict=True)):
        plain = plain_views(SPEC, pair, draw)
        assert len(plain) == len(ours)
        for view, theirs in zip(ours, plain, strict=True):
            assert theirs.dtype == torch.float32
            difference = (view[i] - theirs).abs()
            # 0.22 is the deviation that the views are divided by.
            assert difference.mean() < 4 / 255 / 0.22
            assert difference.max() < 40 / 255 / 0.22


def test_times_are_positive_and_the_ratio_is_that_of_the_totals(pairs: list[FramePair]) -> None:
    times = time_views(pairs, CONFIG, batch_size=2, repeats=2)
    parts = (times.draw_ms, times.cut_ms, times.stack_ms, times.render_ms)
    assert min(*parts, times.plain_ms) > 0
    assert times.total_ms == pytest.approx(sum(parts))
    assert times.ratio == pytest.approx((times.draw_ms + times.plain_ms) / times.total_ms)
    assert 0 < times.mean_difference < 4 < times.worst_difference < 40


def test_timing_leaves_the_number_of_threads_as_it_was(pairs: list[FramePair]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        time_views(pairs, CONFIG, batch_size=1, repeats=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_plain_way_really_adjusts() -> None:
    rng = np.random.default_rng(1)
    frame = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    drawn = draw_views(SPEC, 90, 120, rng)
    colour = drawn.colour
    for name in ("jitter", "grey", "blur_sigma", "solarise"):
        getattr(colour, name)[:] = 0
    colour.jitter[0], colour.factors[0], colour.order[0] = True, (1.3, 1, 1, 0), (0, 1, 2, 3)
    adjusted, other = plain_views(SPEC, (frame, frame), drawn)[:2]
    std, mean = torch.tensor([[0.229, 0.224, 0.225], [0.485, 0.456, 0.406]])[..., None, None]
    image = Image.fromarray((255 * (other * std + mean)).round().byte().permute(1, 2, 0).numpy())
    bright = ImageEnhance.Brightness(image).enhance(1.3)
    # Even a hue that does not turn goes through HSV and back.
    bright = torch.from_numpy(np.array(bright.convert("HSV").convert("RGB")))
    assert (255 * (adjusted * std + mean) - bright.permute(2, 0, 1)).abs().max() < 1
