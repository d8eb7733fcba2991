"""Crosses are where the points are, in the colour of their confidence."""

import numpy as np
import torch

from midway.analysis.track_pictures import COLOURS, draw_tracks, track_strip
from midway.analysis.tracking import Tracks

WAY = torch.tensor([[[20.0, 30], [40, 30], [60, 30], [60, 50]]])
SURE = torch.tensor([[1.0, 0.5, 0.0, 1.0]])
TRACKS = Tracks(points=WAY, confidence=SURE)
GREY = np.full((80, 100, 3), 128, np.uint8)


def colour(confidence: float) -> list[int]:
    return [round(255 * part) for part in COLOURS(confidence)[:3]]


def test_a_cross_is_at_the_point_and_the_way_behind_it():
    drawn = draw_tracks(GREY, TRACKS, 2)
    assert drawn[30, 60].tolist() == colour(0.0)
    assert drawn[30, 30].tolist() == colour(0.5)  # from the first frame to the second
    assert drawn[28, 30].tolist() == [128] * 3
    assert (drawn[45:] == 128).all()  # what is to come is not drawn
    assert (GREY == 128).all()


def test_a_way_is_drawn_at_the_scale_of_the_image():
    drawn = draw_tracks(GREY.repeat(2, 0).repeat(2, 1), TRACKS, 3, scale=2.0)
    assert drawn[101, 121].tolist() == colour(1.0)
    assert colour(0.0) in drawn[60:62, 101].tolist()


def test_a_strip_holds_four_frames_from_the_first_to_the_last():
    frames = torch.arange(7, dtype=torch.uint8)[:, None, None, None].expand(7, 3, 90, 60) * 30
    still = torch.tensor([[[30.0, 45]]]).repeat(1, 7, 1)
    strip = track_strip(frames, Tracks(points=still, confidence=torch.ones(1, 7)))
    assert strip.shape == (180, 4 * 120 + 3 * 4, 3)
    assert [int(strip[5, 5 + 124 * part, 0]) for part in range(4)] == [0, 60, 120, 180]
    assert strip[90, 60].tolist() == colour(1.0)
