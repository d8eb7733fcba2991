"""Keyframes before a time: the same on a new file and on one that knows some of them."""

import numpy as np
import pytest

from midway.data.video.decoder import FrameDecoder
from midway.data.video.file import VideoFile
from tests.data.video.made_videos import even_times, write_video


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a.mp4", "scenecut=0"),
        ("a.mp4", "scenecut=0:open-gop=1:bframes=3"),
        ("a.mkv", "scenecut=0:open-gop=1:bframes=3"),
        ("a.ts", "scenecut=0"),
    ],
)
def test_a_keyframe_is_the_same_whatever_was_asked_before(tmp_path, name, settings):
    path = str(write_video(tmp_path / name, even_times(60), settings=settings))
    # Also between frames, and before and after all of them.
    asked = np.random.default_rng(0).permutation(np.arange(-0.05, 6, 0.15)).tolist()
    alone = []
    for seconds in asked:
        with VideoFile(path) as video:
            alone.append(video.keyframe_at(seconds))
    with VideoFile(path) as video:
        together = [video.keyframe_at(seconds) for seconds in [*asked, *asked]]
        image = video.frames_at([together[0] or 0.0])[0].image
    with VideoFile(path) as video:
        np.testing.assert_array_equal(image, video.frames_at([alone[0] or 0.0])[0].image)
    assert together == [*alone, *alone]
    assert {round(each, 6) for each in alone if each is not None} == {0, 1.2, 2.4, 3.6, 4.8}


def test_a_known_keyframe_is_not_read_again(tmp_path, monkeypatch):
    path = str(write_video(tmp_path / "a.mp4", even_times(60), settings="scenecut=0"))
    with VideoFile(path) as video:
        found = [video.keyframe_at(seconds) for seconds in (1.3, 2.5)]
        monkeypatch.setattr(FrameDecoder, "_seek_back", lambda decoder, pts: iter(()))
        assert [video.keyframe_at(seconds) for seconds in (1.8, 3.1)] == found
        assert video.keyframe_at(3.7) is None  # an unknown one needs a seek
