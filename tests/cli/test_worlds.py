"""midway worlds: worlds of photographs on disk, and one line for each mistake."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from midway.cli import main
from midway.data.labelled_videos.tracks import read_tap_vid, world_video
from midway.data.synthetic.photo_world import PhotoWorldConfig
from tests.data.synthetic.test_photo_world import draw

SMALL = ["--height", "32", "--width", "48", "--num-frames", "3", "--num-worlds", "2"]


@pytest.fixture
def photos(tmp_path: Path) -> str:
    (tmp_path / "photos").mkdir()
    for seed in range(2):
        Image.fromarray(draw(seed)).save(tmp_path / f"photos/{seed}.png")
    return str(tmp_path / "photos")


def test_videos_are_written_from_a_folder_of_pictures(photos, tmp_path, capsys):
    out = tmp_path / "videos"
    words = ["worlds", str(out), "--photos", photos, "--first-seed", "7", *SMALL, "--json"]
    assert main(words) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2] == f"{out}: 2 worlds of 3 frames"
    assert json.loads(printed[-1]) == {"out": str(out), "worlds": 2, "layout": "videos"}
    assert sorted(path.name for path in out.iterdir()) == ["world_0007.mp4", "world_0008.mp4"]


def test_flow_is_written_in_the_layout_of_sintel(photos, tmp_path):
    out = tmp_path / "flow"
    assert main(["worlds", str(out), "--photos", photos, "--layout", "flow", *SMALL]) == 0
    parts = [path.name for path in (out / "training").iterdir()]
    assert sorted(parts) == ["clean", "flow", "occlusions"]
    image = np.asarray(Image.open(out / "training/clean/world_0001/frame_0002.png"))
    assert image.shape == (32, 48, 3)


def test_tracks_are_written_in_the_layout_of_tap_vid(photos, tmp_path):
    out = tmp_path / "tracks"
    assert main(["worlds", str(out), "--photos", photos, "--layout", "tracks", *SMALL]) == 0
    config = PhotoWorldConfig(photos=photos, height=32, width=48, num_frames=3)
    videos = list(read_tap_vid(out))
    assert len(videos) == 2
    for seed, video in enumerate(videos):
        true = world_video(config, seed, 32)
        assert video.name == true.name
        assert np.array_equal(video.frames, true.frames)
        assert np.allclose(video.points, true.points)
        # What has left the frame is hidden too.
        size = np.array([48, 32])
        outside = ((true.points < -0.5) | (true.points > size - 0.5)).any(axis=2)
        assert np.array_equal(video.occluded, true.occluded | outside)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num-worlds", "0"], "give 1 or more"),
        (["--first-seed", "-1"], "a seed of 0 or more"),
        (["--photos", "nowhere"], "photos nowhere: no picture there"),
        (["--height", "33", "--num-worlds", "1"], "odd video size: 33 x 128"),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, photos, capsys):
    given = words if "--photos" in words else [*words, "--photos", photos]
    assert main(["worlds", str(tmp_path / "out"), *given]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_folder_that_is_not_empty_is_left_alone(photos, capsys):
    assert main(["worlds", photos, "--photos", photos]) == 2
    assert "is not empty" in capsys.readouterr().err
