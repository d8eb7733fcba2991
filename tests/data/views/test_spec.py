"""Views of any declaration lie in their regions, agree between frames, and depend on the seed."""

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from midway.data.views.boxes import Box, FixedBox
from midway.data.views.photometric import NEUTRAL, Photometric
from midway.data.views.spec import ClipSpec, Region, View, ViewParameters, cut_regions, draw_views
from midway.errors import MidwayError
from tests.data.views.drawn_views import (
    SPEC,
    assert_same_parameters,
    draw_each,
    draw_many,
    noise_frames,
)


def test_the_seed_alone_decides() -> None:
    def draw(seed: int) -> ViewParameters:
        torch.rand(3)
        return draw_views(SPEC, 96, 128, np.random.default_rng(seed))

    assert_same_parameters(draw(5), draw(5))
    assert not np.array_equal(draw(5).boxes, draw(6).boxes)


def test_windows_are_copies_of_their_part_of_both_frames() -> None:
    (pair,) = noise_frames(1, 96, 128)
    (drawn,) = draw_each(SPEC, 96, 128, 1)
    regions = cut_regions(SPEC, drawn, pair).values()
    for window, box in zip(regions, drawn.windows.tolist(), strict=True):
        top, left, height, width = box
        assert window.shape == (2, height, width, 3)
        assert window.flags.c_contiguous
        for cut, frame in zip(window, pair, strict=True):
            assert np.array_equal(cut, frame[top : top + height, left : left + width])
            assert not np.shares_memory(cut, frame)


def spec_of(num_frames: int = 3, **views: View) -> ClipSpec:
    """A clip of one region, the whole frame."""
    return ClipSpec(num_frames=num_frames, regions={"frame": Region()}, views=views)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClipSpec(num_frames=0), "views: num_frames = 0; give 1 or more"),
        (
            lambda: ClipSpec(
                regions={"frame": Region(), "part": Region()},
                views={"crop": View(size=(8, 8), region="whole")},
            ),
            "views: crop has no region 'whole'; there are frame, part",
        ),
        (
            lambda: ClipSpec(views={"crop": View(size=(8, 8), region="frame")}),
            "views: crop has no region 'frame'; there are none",
        ),
        (
            lambda: spec_of(crop=View(size=(8, 0), region="frame")),
            "views: crop has no pixels; give",
        ),
        (
            lambda: spec_of(crop=View(size=(8, 8), region="frame", p_flip=1.1)),
            r"p_flip in \[0, 1\]",
        ),
        (lambda: spec_of(crop=View(size=(8, 8), region="frame", p_flip=-0.1)), "crop has count"),
        (lambda: spec_of(crop=View(size=(8, 8), region="frame", count=-1)), "a count of 0 or more"),
        (
            lambda: ClipSpec(regions={"frame": Region(short_side=0)}),
            "views: frame has no short side; give 1 pixel or more",
        ),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused_in_one_line(make, message: str) -> None:
    with pytest.raises(MidwayError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_slices_follow_one_another_view_by_view() -> None:
    spec = spec_of(
        one=View(size=(8, 8), region="frame", aligned=True),
        none=View(size=(8, 8), region="frame", count=0),
        four=View(size=(8, 8), region="frame", count=4),
    )
    assert spec.slices == {"one": slice(0, 3), "none": slice(3, 3), "four": slice(3, 15)}
    assert [spec.num_crops(name) for name in spec.views] == [3, 0, 12]
    drawn = draw_views(spec, 20, 30, np.random.default_rng(0))
    assert drawn.boxes.shape == (15, 4)
    assert drawn.flip.shape == drawn.colour.grey.shape == (15,)


@pytest.mark.parametrize("num_frames", [1, 3, 8])
def test_aligned_views_share_boxes_and_flips_in_all_frames_and_others_do_not(
    num_frames: int,
) -> None:
    box = Box(area=(0.2, 0.8))
    spec = spec_of(
        num_frames,
        shared=View(size=(8, 8), region="frame", box=box, count=2, aligned=True, p_flip=0.5),
        own=View(size=(8, 8), region="frame", box=box, count=2, p_flip=0.5),
        whole=View(size=(8, 8), region="frame", aligned=True, p_flip=0.5),
    )
    drawn = draw_many(spec, 60, 80, 100)
    by_view = {
        name: (
            drawn.boxes[place].reshape(num_frames, -1, 100, 4),
            drawn.flip[place].reshape(num_frames, -1, 100),
        )
        for name, place in spec.slices.items()
    }
    for name in ("shared", "whole"):
        boxes, flip = by_view[name]
        assert (boxes == boxes[:1]).all()
        assert (flip == flip[:1]).all()
        assert 0.3 < flip[0].mean() < 0.7
    boxes, _ = by_view["shared"]
    assert (boxes[:, 0] != boxes[:, 1]).any(-1).mean() > 0.9
    boxes, flip = by_view["own"]
    every = boxes.reshape(-1, 100, 4)
    for first in range(len(every)):
        for second in range(first):
            assert (every[first] != every[second]).any(-1).mean() > 0.9
    if num_frames > 1:
        assert 0.3 < (flip[0] != flip[1]).mean() < 0.7


def test_views_and_regions_without_a_box_take_all_there_is() -> None:
    spec = ClipSpec(
        num_frames=2,
        regions={"frame": Region(), "part": Region(box=FixedBox(size=(20, 30)))},
        views={
            "all": View(size=(8, 8), region="frame", count=2),
            "part": View(size=(8, 8), region="part"),
        },
    )
    drawn = draw_many(spec, 40, 50, 20)
    assert (drawn.windows[0] == (0, 0, 40, 50)).all()
    assert (drawn.windows[1, :, 2:] == (20, 30)).all()
    assert (drawn.boxes[spec.slices["all"]] == (0, 0, 40, 50)).all()
    assert (drawn.boxes[spec.slices["part"]] == (0, 0, 20, 30)).all()
    assert not drawn.flip.any()


def test_a_region_is_shrunk_to_its_short_side_before_it_travels() -> None:
    box = Box(area=(0.1, 1.0))
    spec = ClipSpec(
        num_frames=2,
        regions={"frame": Region(short_side=30)},
        views={"crop": View(size=(8, 8), region="frame", box=box, count=50)},
    )
    smooth = [Image.radial_gradient("L").resize((130, 91)), Image.linear_gradient("L")]
    frames = [np.array(each.resize((130, 91)).convert("RGB")) for each in smooth]
    (drawn,) = draw_each(spec, 91, 130, 1)
    assert drawn.windows.tolist() == [[0, 0, 91, 130]]
    region = cut_regions(spec, drawn, frames)["frame"]
    assert region.shape == (2, 30, 43, 3)
    assert region.dtype == np.uint8
    for made, frame in zip(region, frames, strict=True):
        wanted = Image.fromarray(frame).resize((43, 30), Image.Resampling.BICUBIC)
        assert np.abs(made.astype(int) - np.array(wanted)).max() <= 1
    # Crops lie inside the region as it travels.
    assert (drawn.boxes[:, :2] >= 0).all()
    assert (drawn.boxes[:, :2] + drawn.boxes[:, 2:] <= (30, 43)).all()
    assert (drawn.boxes[:, :2] + drawn.boxes[:, 2:]).max(0).tolist() == [30, 43]


@pytest.mark.parametrize("size", [(30, 43), (29, 100), (12, 9)])
def test_a_region_that_is_no_larger_than_its_short_side_travels_as_it_is(
    size: tuple[int, int],
) -> None:
    spec = ClipSpec(regions={"frame": Region(short_side=30)})
    ((frame,),) = noise_frames(1, *size, num_frames=1)
    region = cut_regions(spec, draw_each(spec, *size, 1)[0], [frame])["frame"]
    assert np.array_equal(region[0], frame)


def sigmas(drawn: ViewParameters, place: slice) -> NDArray[np.float32]:
    return drawn.colour.blur_sigma[place]


def test_recipes_are_taken_in_turn_frame_by_frame() -> None:
    recipes = tuple(Photometric(p_blur=1.0, blur_sigma=(sigma, sigma)) for sigma in (0.5, 1.0, 1.5))
    view = View(size=(8, 8), region="frame", count=2, photometric=recipes)
    spec = spec_of(4, plain=View(size=(8, 8), region="frame"), blurred=view, again=view)
    drawn = draw_views(spec, 20, 30, np.random.default_rng(0))
    assert not sigmas(drawn, spec.slices["plain"]).any()
    for name in ("blurred", "again"):  # each view begins with its first recipe
        expected = [0.5, 1.0, 1.5, 0.5, 1.0, 1.5, 0.5, 1.0]
        np.testing.assert_allclose(sigmas(drawn, spec.slices[name]), expected, rtol=1e-6)


def test_a_view_without_recipes_is_neutral_and_takes_no_random_numbers() -> None:
    coloured = View(size=(8, 8), region="frame", count=2, photometric=(Photometric(p_blur=0.5),))
    alone = spec_of(coloured=coloured)
    both = spec_of(plain=View(size=(8, 8), region="frame", count=3), coloured=coloured)
    drawn = draw_views(both, 20, 30, np.random.default_rng(4))
    plain = {name: value[both.slices["plain"]] for name, value in vars(drawn.colour).items()}
    assert (plain["factors"] == np.float32(NEUTRAL)).all()
    for name in ("jitter", "grey", "blur_sigma", "solarise"):
        assert not plain[name].any()
    wanted = draw_views(alone, 20, 30, np.random.default_rng(4)).colour
    for name, value in vars(wanted).items():
        assert np.array_equal(getattr(drawn.colour, name)[both.slices["coloured"]], value)


def test_a_declaration_without_regions_draws_nothing() -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    drawn = draw_views(ClipSpec(num_frames=2), 20, 30, rng)
    assert rng.bit_generator.state == before
    assert drawn.windows.shape == drawn.boxes.shape == (0, 4)
    assert cut_regions(ClipSpec(num_frames=2), drawn, noise_frames(1, 20, 30)[0]) == {}


def test_recipes_of_other_values_change_nothing_that_is_not_theirs() -> None:
    """Boxes and flips do not depend on the colours."""
    bare = {name: dataclasses.replace(view, photometric=()) for name, view in SPEC.views.items()}
    without = dataclasses.replace(SPEC, views=bare)
    ours, theirs = (draw_views(spec, 96, 128, np.random.default_rng(2)) for spec in (SPEC, without))
    assert np.array_equal(ours.windows, theirs.windows)
    assert np.array_equal(ours.boxes, theirs.boxes)
    assert np.array_equal(ours.flip, theirs.flip)
