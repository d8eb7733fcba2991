"""Tracks scored end to end, on made worlds and files of TAP-Vid."""

import json
import pickle

import numpy as np
import pytest
import torch

from midway.analysis.tracking import Tracks
from midway.cli import main
from midway.data.labelled_videos.tracks import TrackedVideo, world_video
from midway.data.synthetic.world import WorldConfig
from midway.errors import MidwayError
from midway.evals import tracking
from midway.evals.tracking import TrackerConfig, score_videos
from midway.models.weights.save import save

from ..models.networks import random_network

CONFIG = WorldConfig(height=32, width=48, num_frames=6, fps=6, object_speed=10, camera_speed=5)
QUICK = TrackerConfig(method="features")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return random_network()


def test_points_that_do_not_move_are_tracked_by_features_and_by_standing_still(network):
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    points = np.random.default_rng(1).uniform(4, 60, (5, 1, 2)).repeat(4, axis=1)
    video = TrackedVideo(
        name="still",
        frames=np.stack([frame] * 4),
        points=points,
        occluded=np.zeros((5, 4), bool),
    )
    found = score_videos(network, [video], QUICK)["still"]
    assert found["queries"] == 5
    assert set(found["still"].values()) == {1.0}
    assert set(found["tracked"].values()) == {1.0}


def test_true_tracks_have_full_marks_at_any_size_of_video(network, monkeypatch):
    video = world_video(CONFIG, 1, 12)
    scale = np.array([256 / 48, 256 / 32])

    def cheat(_network, frames, points, starts, **_):
        assert frames.shape == (6, 3, 256, 256)
        wanted = torch.from_numpy((video.points + 0.5) * scale - 0.5)
        numbers = [
            int((wanted[:, start] - point).norm(dim=1).argmin())
            for point, start in zip(points, starts, strict=True)
        ]
        seen = torch.from_numpy(~video.occluded)[numbers]
        return Tracks(points=wanted[numbers], confidence=seen.float())

    monkeypatch.setattr(tracking, "track_points", cheat)
    for mode in ("first", "strided"):
        found = score_videos(network, [video], TrackerConfig(mode=mode))
        (scores,) = found.values()
        assert set(scores["tracked"].values()) == {1.0}
        assert scores["still"]["average_jaccard"] < 1


def test_few_queries_of_a_video_can_be_followed_alone(network):
    how = TrackerConfig(method="features", queries_per_video=3)
    (found,) = score_videos(network, [world_video(CONFIG, 1, 12)], how).values()
    assert found["queries"] == 3


def test_made_worlds_are_scored_from_the_command_line(network, tmp_path, capsys):
    save(network, tmp_path / "net.safetensors")
    words = [
        "--network",
        str(tmp_path / "net.safetensors"),
        "--accelerator",
        "cpu",
        "--num-draws",
        "1",
    ]
    words += ["--num-worlds", "2", "--points-per-world", "4", "--num-frames", "4"]
    assert main(["eval", "tracking", *words, "--folder", str(tmp_path / "out"), "--json"]) == 0
    printed = capsys.readouterr().out.splitlines()
    results = json.loads(printed[-1])
    assert results == json.loads((tmp_path / "out/results.json").read_text())
    assert (results["num_videos"], results["queries"]) == (2, 8)
    assert 0 <= results["tracked"]["average_jaccard"] <= 1
    assert [*results["videos"]] == ["world_1000000", "world_1000001"]


def test_a_file_of_tap_vid_is_scored_and_errors_name_it(network, tmp_path, capsys):
    save(network, tmp_path / "net.safetensors")
    video = world_video(CONFIG, 1, 6)
    points = (video.points + 0.5) / [48, 32]
    values = {"video": video.frames, "points": points, "occluded": video.occluded}
    (tmp_path / "tap.pkl").write_bytes(pickle.dumps({"one": values}))
    (tmp_path / "short.pkl").write_bytes(pickle.dumps({"one": {**values, "video": []}}))
    words = [
        "eval",
        "tracking",
        "--network",
        str(tmp_path / "net.safetensors"),
        "--method",
        "features",
    ]
    assert main([*words, "--data.root", str(tmp_path / "tap.pkl"), "--json"]) == 0
    results = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert results["queries"] == 6
    assert main([*words, "--data.root", str(tmp_path / "short.pkl")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'short.pkl'}: one: video of shape" in line


def test_videos_of_one_name_are_scored_apart(network):
    videos = [world_video(CONFIG, 1, 3), world_video(CONFIG, 1, 2)]
    found = score_videos(network, videos, QUICK)
    name = videos[0].name
    assert [(key, each["queries"]) for key, each in found.items()] == [
        (name, 3),
        (f"{name} (2)", 2),
    ]


def test_videos_in_which_nothing_is_seen_are_an_error(network):
    video = world_video(CONFIG, 1, 3)
    video.occluded[:] = True
    with pytest.raises(MidwayError, match="no point of any video is ever visible"):
        score_videos(network, [video], QUICK)
