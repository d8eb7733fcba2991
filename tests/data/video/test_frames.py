"""Frames by number are those that a decoder gives, whatever the order they are asked for in."""

from pathlib import Path

import av
import numpy as np
import pytest

from midway.data.clip import BadClipError
from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_videos
from midway.data.video.file import VideoFile
from midway.data.video.frames import BLOCK, VideoFrames
from tests.data.video.made_videos import write_video


@pytest.fixture
def video(tmp_path: Path):
    config = WorldConfig(height=32, width=48, num_frames=BLOCK + 8, fps=8, num_objects=2)
    return write_videos(tmp_path, config, seeds=[0])[0]


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("step", [1, -1])
def test_all_frames_in_either_order(video, step):
    expected = decoded(video)
    with VideoFile(str(video)) as opened:
        frames = VideoFrames(opened)
        assert len(frames) == len(expected)
        assert frames.fps == pytest.approx(8)
        for number in range(len(frames))[::step]:
            found = frames[number].permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(found, expected[number])
        with pytest.raises(IndexError):
            frames[len(frames)]


def test_a_lower_rate_takes_every_so_manieth_frame(video):
    expected = decoded(video)[::4]
    with VideoFile(str(video)) as opened:
        frames = VideoFrames(opened, fps=2)
        assert frames.seconds == pytest.approx([0.5 * number for number in range(len(expected))])
        for number, image in enumerate(expected):
            np.testing.assert_array_equal(frames[number].permute(1, 2, 0).numpy(), image)


def test_a_higher_rate_repeats_no_frame(video):
    with VideoFile(str(video)) as opened:
        assert len(VideoFrames(opened, fps=30)) == BLOCK + 8


def test_a_rate_that_leaves_one_frame_is_told(video):
    with VideoFile(str(video)) as opened, pytest.raises(BadClipError, match="single frame"):
        VideoFrames(opened, fps=0.01)


def test_an_uneven_video_is_sampled_by_its_own_times(tmp_path: Path):
    times = [0.0, 0.01, 0.02, 3.0, 3.1, 3.5]
    path = write_video(tmp_path / "phone.mkv", times)
    with VideoFile(str(path)) as opened:
        assert VideoFrames(opened).seconds == pytest.approx(times, abs=2e-3)
        assert VideoFrames(opened, fps=1).seconds == pytest.approx([0, 0.02, 3.0], abs=2e-3)
