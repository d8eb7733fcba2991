"""Marks are where the points are, one colour a point, with start, time and legend."""

import numpy as np
import torch

from midway.analysis.lettering import BACK, MIN_SIDE
from midway.analysis.track_pictures import colours_of, draw_tracks, track_frame, track_strip
from midway.analysis.tracking import Tracks

WAY = torch.tensor([[[20.0, 30], [40, 30], [60, 30], [60, 50]]])
SURE = torch.tensor([[1.0, 0.8, 0.0, 1.0]])
TRACKS = Tracks(points=WAY, confidence=SURE)
START = torch.tensor([0])
GREY = np.full((80, 100, 3), 128, np.uint8)
(COLOUR,) = map(list, colours_of(1))


def test_a_point_is_a_dot_with_the_way_behind_it():
    drawn = draw_tracks(GREY, TRACKS, START, 1)
    assert drawn[30, 40].tolist() == COLOUR
    assert drawn[30, 30].tolist() == COLOUR  # from the first frame to the second
    assert drawn[20, 30].tolist() == [128] * 3
    assert (drawn[45:] == 128).all()  # what is to come is not drawn
    assert (GREY == 128).all()


def test_a_lost_point_is_a_ring():
    without_way = Tracks(points=WAY[:, 2:3], confidence=torch.tensor([[0.4]]))
    sure = Tracks(points=WAY[:, 2:3], confidence=torch.tensor([[0.6]]))
    rings, dots = (
        sum((draw_tracks(GREY, each, START, 0) == COLOUR).all(2).ravel())
        for each in (without_way, sure)
    )
    assert rings < dots


def test_the_start_keeps_a_diamond():
    drawn = draw_tracks(GREY, TRACKS, START, 3)
    around = drawn[20:41, 10:20].reshape(-1, 3).tolist()  # left of the start, off the way
    assert COLOUR in around
    other = draw_tracks(GREY, TRACKS, torch.tensor([3]), 3)
    assert COLOUR not in other[20:41, 10:19].reshape(-1, 3).tolist()


def test_a_way_is_drawn_at_the_scale_of_the_image():
    drawn = draw_tracks(GREY.repeat(2, 0).repeat(2, 1), TRACKS, START, 3, scale=2.0)
    assert drawn[101, 121].tolist() == COLOUR
    assert COLOUR in drawn[60:62, 101].tolist()


def test_each_point_has_its_own_colour():
    for count in (1, 8, 9, 60):
        assert len({*colours_of(count)}) == count


def test_a_small_frame_is_enlarged_below_its_time_and_above_its_legend():
    drawn = track_frame(GREY, {"": TRACKS}, START, 1, 0.25)
    factor = -(-MIN_SIDE // 80)
    assert drawn.shape[1] == factor * 100
    is_image = (drawn[:, -1] == 128).all(1)
    assert is_image.sum() == factor * 80
    assert not is_image[[0, -1]].any()
    for bar in (drawn[: is_image.argmax()], drawn[len(drawn) - is_image[::-1].argmax() :]):
        assert (bar == BACK).all(2).any()
        assert (bar > 200).any()  # letters


def test_networks_stand_side_by_side():
    one = track_frame(GREY, {"a": TRACKS}, START, 1, 0.25)
    two = track_frame(GREY, {"a": TRACKS, "b": TRACKS}, START, 1, 0.25)
    assert two.shape[1] == 2 * one.shape[1] + 4
    np.testing.assert_array_equal(two[:240, :200], one[:240, :200])


def test_many_points_have_neither_numbers_nor_entries_in_the_legend():
    many = Tracks(points=WAY.repeat(40, 1, 1), confidence=SURE.repeat(40, 1))
    starts = torch.zeros(40, dtype=torch.long)
    few = Tracks(points=WAY.repeat(8, 1, 1), confidence=SURE.repeat(8, 1))
    heights = [
        len(track_frame(GREY, {"": tracks}, starts[: len(tracks.points)], 1, 0.0))
        for tracks in (many, few)
    ]
    assert heights[0] < heights[1]  # the legend of eight points needs more lines


def test_a_strip_holds_four_frames_from_the_first_to_the_last():
    frames = torch.arange(7, dtype=torch.uint8)[:, None, None, None].expand(7, 3, 90, 60) * 30
    still = torch.tensor([[[30.0, 45]]]).repeat(1, 7, 1)
    tracks = Tracks(points=still, confidence=torch.ones(1, 7))
    seconds = [number / 2 for number in range(7)]
    strip = track_strip(frames, {"": tracks}, START, seconds)
    assert strip.shape[1] == 4 * 160 + 3 * 4
    assert [int(strip[100, 5 + 164 * part, 0]) for part in range(4)] == [0, 60, 120, 180]
    both = track_strip(frames, {"a": tracks, "b": tracks}, START, seconds)
    assert len(both) > len(strip) + 240
