"""Crops centred by flow: their places, sizes and pixels."""

import pytest
import torch

from midway.errors import MidwayError
from midway.nn.subcrops import SubcropConfig, cut, draw_subcrops

SIZE = (96, 128)


def corners(boxes):
    low = boxes[..., :2] - boxes[..., 2:] / 2 + 0.5
    return low, low + boxes[..., 2:]


def test_boxes_lie_inside_and_have_their_areas_and_aspect_ratios():
    torch.manual_seed(0)
    config = SubcropConfig(count=6)
    drawn = draw_subcrops(config, 20 * torch.randn(200, 2, *SIZE))
    for boxes in (drawn.source, drawn.target):
        assert boxes.shape == (200, 6, 4)
        low, high = corners(boxes)
        assert (low >= -1e-3).all()
        assert (high <= torch.tensor([128.0, 96.0]) + 1e-3).all()
        area = boxes[..., 2] * boxes[..., 3] / (96 * 128)
        assert (area >= 0.05 - 1e-4).all()
        assert (area <= 0.3 + 1e-4).all()
        ratio = boxes[..., 2] / boxes[..., 3]
        assert (ratio >= 0.75 - 1e-4).all()
        assert (ratio <= 4 / 3 + 1e-4).all()
    areas = [(boxes[..., 2] * boxes[..., 3]) for boxes in (drawn.source, drawn.target)]
    assert (areas[1] >= areas[0] * (1 - 1e-4)).all()
    # The mean of U(0.05, 0.3), within four standard errors.
    assert areas[0].mean().item() / (96 * 128) == pytest.approx(0.175, abs=0.0084)


def test_crops_of_the_target_follow_the_flow():
    torch.manual_seed(0)
    config = SubcropConfig(count=4, area=(0.02, 0.02), aspect=(1.0, 1.0), jitter=0.0)
    flow = torch.zeros(50, 2, *SIZE)
    flow[:, 0], flow[:, 1] = 9.0, -4.0
    drawn = draw_subcrops(config, flow)
    side = (0.02 * 96 * 128) ** 0.5
    # Boxes that the border did not shift.
    free = drawn.moved.clone()
    for boxes in (drawn.source, drawn.target):
        low, high = corners(boxes)
        free &= (low > 1e-2).all(-1) & (high < torch.tensor([128.0, 96.0]) - 1e-2).all(-1)
    assert free.float().mean() > 0.5
    moved = (drawn.target - drawn.source)[free]
    torch.testing.assert_close(moved[:, :2], torch.tensor([9.0, -4.0]).expand(len(moved), 2))
    assert drawn.source[..., 2:].mean().item() == pytest.approx(side, rel=1e-4)


def test_centres_lie_in_different_cells():
    torch.manual_seed(0)
    # Cells of 46 pixels: 3 x 3 of them; so small that the border shifts hardly any box.
    config = SubcropConfig(count=9, area=(0.0001, 0.45), jitter=0.0)
    assert config.cell(SIZE) == 46
    small = SubcropConfig(count=9, area=(0.0001, 0.0001), jitter=0.0)
    drawn = draw_subcrops(small, torch.zeros(20, 2, *SIZE)).source
    cell = small.cell(SIZE)
    assert cell == 1
    places = ((drawn[..., :2] + 0.5) // cell).long()
    for image in places:
        assert len({tuple(place) for place in image.tolist()}) == 9


def test_points_that_leave_the_target_give_two_crops_of_the_source():
    torch.manual_seed(0)
    away = torch.full((3, 2, *SIZE), 500.0)
    config = SubcropConfig(count=3, area=(0.1, 0.1), aspect=(1.0, 1.0), jitter=0.0)
    drawn = draw_subcrops(config, away)
    assert not drawn.moved.any()
    torch.testing.assert_close(drawn.source, drawn.target)
    # Stripes of half of the image move out: another point of the cell is found.
    stripes = torch.zeros(100, 2, *SIZE)
    stripes[:, :, :, torch.arange(128) // 16 % 2 == 0] = 500.0
    assert draw_subcrops(SubcropConfig(count=3), stripes).moved.float().mean() > 0.9


def test_a_box_is_cut_as_by_slicing_and_resized_about_its_centre():
    image = torch.rand(1, 3, *SIZE)
    # Columns 10 to 29, rows 20 to 35.
    box = torch.tensor([[[19.5, 27.5, 20.0, 16.0]]])
    torch.testing.assert_close(cut(image, box, (16, 20))[0, 0], image[0, :, 20:36, 10:30])
    half = cut(image, box, (8, 10))[0, 0]
    pooled = torch.nn.functional.avg_pool2d(image[:, :, 20:36, 10:30], 2)[0]
    torch.testing.assert_close(half, pooled)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 0}, "count and size must be 1 or more"),
        ({"area": (0.3, 0.1)}, "give 0 < low <= high <= 1"),
        ({"aspect": (0.0, 1.0)}, "give 0 < low <= high"),
        ({"jitter": 2.0}, "give 0 to 1"),
    ],
)
def test_a_bad_configuration_is_refused(fields: dict, message: str):
    with pytest.raises(MidwayError, match=message):
        SubcropConfig(**fields)


def test_more_crops_than_cells_are_refused():
    SubcropConfig(count=9).check_fits((224, 224))
    with pytest.raises(MidwayError, match="an image has 9 cells"):
        SubcropConfig(count=10).check_fits((224, 224))
