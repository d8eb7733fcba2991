"""Walks show the place that their actions lead to, on disk as in memory."""

from pathlib import Path

import numpy as np
import pytest

from midway.data.clips.find import find_clips
from midway.data.signals import read_signals
from midway.data.synthetic.walk import Walk, WalkConfig, write_walks
from midway.data.synthetic.world import WorldConfig
from midway.errors import MidwayError

CONFIG = WalkConfig(picture=WorldConfig(height=60, width=72, num_objects=2), side=32, num_frames=40)


def test_actions_are_all_steps_in_units_of_the_longest() -> None:
    assert CONFIG.actions.shape == (25, 2)
    assert len(np.unique(CONFIG.actions, axis=0)) == 25
    assert np.unique(CONFIG.actions).tolist() == [-1, -0.5, 0, 0.5, 1]
    assert CONFIG.longest == 8


def test_each_action_of_a_path_leads_to_the_next_place_within_the_picture() -> None:
    walk = Walk(CONFIG, 3)
    places, actions = walk.path(200)
    assert (places[1:] - places[:-1] == 8 * actions[:-1]).all()
    assert (places >= 0).all()
    assert (places <= [72 - 32, 60 - 32]).all()
    # It goes everywhere: to all edges, by all actions.
    assert places.min(0).tolist() == [0, 0]
    assert places.max(0).tolist() == [40, 28]
    assert len(np.unique(actions, axis=0)) == 25
    for place, action in zip(places, actions, strict=True):
        assert (walk.moved(place, action) == place + 8 * action).all()


def test_the_camera_stops_at_the_edges() -> None:
    walk = Walk(CONFIG, 0)
    assert walk.moved(np.array([3, 25]), np.array([-1, 1])).tolist() == [0, 28]


def test_a_step_shows_the_same_picture_shifted() -> None:
    walk = Walk(CONFIG, 1)
    here, there = walk.view(np.array([8, 4])), walk.view(np.array([16, 8]))
    assert here.shape == (32, 32, 3)
    assert (here[4:, 8:] == there[:-4, :-8]).all()
    assert (here != there).any()


def test_a_seed_gives_one_walk_and_another_seed_another() -> None:
    one, same, other = (Walk(CONFIG, seed) for seed in (5, 5, 6))
    assert (one.picture == same.picture).all()
    assert all((a == b).all() for a, b in zip(one.path(9), same.path(9), strict=True))
    assert (one.picture != other.picture).any()
    assert (one.random_place() == same.random_place()).all()


def test_written_walks_have_their_actions_at_their_frames(tmp_path: Path) -> None:
    paths = write_walks(tmp_path / "walks", CONFIG, seeds=(0, 7))
    assert [path.name for path in paths] == ["world_0000.mp4", "world_0007.mp4"]
    walk = Walk(CONFIG, 7)
    places, actions = walk.path(CONFIG.num_frames)
    clips = {
        clip.name: clip
        for clip in find_clips(str(tmp_path / "walks"), fps=4, gap_seconds=(0.25, 0.25)).clips
    }
    (clip,) = (clip for name, clip in clips.items() if "0007" in name)
    seconds = [0, 0.25, 5, 9.75]
    found = read_signals(clip, {"action": (2,)}, seconds)
    numbers = [0, 1, 20, 39]
    assert (found["action"] == actions[numbers]).all()
    with clip.open() as reader:
        frames = reader.frames_at(seconds)
    for frame, number in zip(frames, numbers, strict=True):
        differences = [
            np.abs(frame.image.astype(int) - walk.view(place)).mean() for place in places
        ]
        # The frame is that of its own place, or of another visit to it.
        assert (places[np.argmin(differences)] == places[number]).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"side": 33}, "side = 33, fps = 4.0; give an even side"),
        ({"fps": 0.0}, "fps = 0.0"),
        ({"reach": 0}, "reach 0 is too small"),
        ({"side": 54}, "exceeds the view by 6 pixels, less than a step of 8"),
    ],
)
def test_walks_that_cannot_be_are_refused(changes: dict[str, float], said: str) -> None:
    with pytest.raises(MidwayError, match=said):
        WalkConfig(picture=CONFIG.picture, **changes)  # pyright: ignore[reportArgumentType]
