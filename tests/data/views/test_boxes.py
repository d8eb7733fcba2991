"""Random boxes have the areas, aspects and places that they ask for, whatever their parents."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from midway.data.views.boxes import AnyBox, Box, FixedBox, LatticeBox, draw_boxes
from midway.errors import MidwayError


def draw(
    parents: tuple[int, int] | Sequence[tuple[int, int]],
    boxes: Sequence[AnyBox],
    seed: int = 0,
) -> NDArray[np.int64]:
    """Boxes in parents of their own sizes, or all in parents of one size."""
    sizes = np.broadcast_to(np.array(parents), (len(boxes), 2))
    return draw_boxes(sizes, boxes, np.random.default_rng(seed))


def test_areas_are_uniform_and_aspects_log_uniform_and_places_uniform() -> None:
    box = Box(area=(0.05, 0.2), aspect=(0.5, 2.0))
    boxes = draw((2000, 3000), [box] * 20_000)
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
    boxes = draw((8, 9), [Box(area=(0.2, 0.3))] * 500)
    assert boxes[:, :2].min(0).tolist() == [0, 0]
    assert (boxes[:, :2] + boxes[:, 2:]).max(0).tolist() == [8, 9]


def test_a_frame_too_narrow_for_any_box_gives_the_largest_central_one() -> None:
    boxes = [Box(area=(0.9, 1.0))]
    wide = draw((30, 400), boxes)
    assert wide.tolist() == [[0, 180, 30, 40]]
    tall = draw((400, 30), boxes)
    assert tall.tolist() == [[180, 0, 40, 30]]


def test_a_fixed_box_keeps_its_size_and_its_place_is_uniform() -> None:
    boxes = draw((500, 900), [FixedBox(size=(100, 300))] * 5000)
    assert (boxes[:, 2:] == (100, 300)).all()
    places = boxes[:, :2] / (400, 600)
    assert places.min() == 0
    assert places.max() == 1
    for quantile in (0.1, 0.5, 0.9):
        np.testing.assert_allclose(np.quantile(places, quantile, axis=0), quantile, atol=0.02)


@pytest.mark.parametrize(
    ("parent", "expected"),
    [((20, 300), (20, 40)), ((300, 20), (30, 20)), ((5, 6), (5, 6)), ((30, 40), (30, 40))],
)
def test_a_parent_smaller_than_a_fixed_box_is_taken_whole(
    parent: tuple[int, int], expected: tuple[int, int]
) -> None:
    boxes = draw(parent, [FixedBox(size=(30, 40))] * 50)
    assert (boxes[:, 2:] == expected).all()
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= parent).all()


def test_boxes_in_parents_of_different_sizes_are_drawn_as_each_by_itself() -> None:
    """The distributions of size and place are those of draws in a single parent."""
    kinds = [
        ((600, 800), Box(area=(0.2, 0.4))),
        ((90, 50), Box(area=(0.5, 1.0), aspect=(0.5, 2.0))),
        ((64, 64), FixedBox(size=(32, 16))),
        ((7, 400), Box(area=(0.9, 1.0))),
    ]
    num_draws = 3000
    parents, boxes = zip(*(kinds * num_draws), strict=True)
    together = draw(parents, boxes).reshape(num_draws, len(kinds), 4)
    assert (together >= (0, 0, 1, 1)).all()
    assert (together[..., :2] + together[..., 2:] <= [parent for parent, _ in kinds]).all()
    for number, (parent, box) in enumerate(kinds):
        alone = draw(parent, [box] * num_draws, seed=1)
        scale = np.tile(parent, 2)
        for quantile in (0.1, 0.5, 0.9):
            np.testing.assert_allclose(
                np.quantile(together[:, number], quantile, axis=0) / scale,
                np.quantile(alone, quantile, axis=0) / scale,
                atol=0.04,
            )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Box(area=(0.0, 0.2)), r"area is \(0\.0, 0\.2\); give 0 < low <= high <= 1"),
        (lambda: Box(area=(0.4, 0.2)), "bad range: area"),
        (lambda: Box(area=(0.4, 1.1)), "bad range: area"),
        (lambda: Box(area=(math.nan, 1)), "bad range: area"),
        (lambda: Box(area=(1, 1), aspect=(0, 1)), r"aspect is \(0, 1\); give 0 < low <= high"),
        (lambda: Box(area=(1, 1), aspect=(2, 1)), "bad range: aspect"),
        (lambda: Box(area=(1, 1), aspect=(1, math.inf)), "bad range: aspect"),
        (lambda: FixedBox(size=(0, 5)), r"size is \(0, 5\); give a height and width above 0"),
    ],
)
def test_a_box_that_cannot_be_drawn_is_refused(make, message: str) -> None:
    with pytest.raises(MidwayError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_lattice_boxes_are_whole_parts_apart_and_reach_both_ends() -> None:
    boxes = draw((64, 128), [LatticeBox(covered=6, parts=8)] * 500)
    assert (boxes[:, 2:] == (48, 96)).all()
    assert sorted(set(boxes[:, 0].tolist())) == [0, 8, 16]
    assert sorted(set(boxes[:, 1].tolist())) == [0, 16, 32]


@pytest.mark.parametrize("side", [5, 61, 67, 200])
def test_lattice_boxes_of_any_parent_lie_inside_within_half_a_pixel(side: int) -> None:
    boxes = draw((side, side), [LatticeBox(covered=6, parts=8)] * 100).astype(float)
    assert (boxes[:, :2] + boxes[:, 2:] <= side).all()
    assert (np.abs(boxes[:, :2] - np.round(8 * boxes[:, :2] / side) * side / 8) <= 0.5).all()


@pytest.mark.parametrize(("covered", "parts"), [(0, 8), (9, 8)])
def test_a_lattice_box_has_one_part_to_all(covered: int, parts: int) -> None:
    with pytest.raises(MidwayError, match="give 1 or more, at most all parts"):
        LatticeBox(covered=covered, parts=parts)
