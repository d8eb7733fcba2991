"""The blank end of a video is found to the frame, and nothing else is taken for one."""

import numpy as np
import pytest

from midway.data.video.blank_tail import blank_tail_start
from tests.data.video.made_videos import even_times, noise, write_video


def ending(first_blank: int, level: int, other=noise):
    """Pictures that are of one grey from a number on."""
    return lambda n: other(n) if n < first_blank else np.full((48, 64, 3), level, np.uint8)


@pytest.mark.parametrize("name", ["made.mp4", "made.mkv", "made.ts"])
@pytest.mark.parametrize(("first_blank", "level"), [(150, 0), (37, 255), (199, 16), (1, 90)])
def test_a_blank_tail_starts_at_its_first_frame(tmp_path, name, first_blank, level):
    picture = ending(first_blank, level)
    path = write_video(tmp_path / name, even_times(200), picture=picture, gop=25)
    assert blank_tail_start(str(path)) == pytest.approx(first_blank / 10, abs=1e-3)


def test_a_video_that_shows_something_to_its_end_has_none(tmp_path):
    path = write_video(tmp_path / "made.mp4", even_times(40), picture=noise)
    assert blank_tail_start(str(path)) is None


def test_a_video_that_shows_nothing_is_blank_from_its_start(tmp_path):
    path = write_video(tmp_path / "made.mp4", even_times(40), picture=ending(0, 0))
    assert blank_tail_start(str(path)) == 0


def test_a_dark_end_that_shows_something_is_not_blank(tmp_path):
    path = write_video(tmp_path / "made.mp4", even_times(40), picture=lambda n: noise(n) // 8)
    assert blank_tail_start(str(path)) is None


def test_a_blank_stretch_before_the_end_is_not_a_tail(tmp_path):
    def picture(number: int) -> np.ndarray:
        return np.zeros((48, 64, 3), np.uint8) if 10 <= number < 30 else noise(number)

    path = write_video(tmp_path / "made.mp4", even_times(40), picture=picture)
    assert blank_tail_start(str(path)) is None
