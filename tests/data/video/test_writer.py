"""A video is written whole or not at all."""

from pathlib import Path

import av
import numpy as np
import pytest

from midway.data.video.writer import writing_video
from midway.errors import MidwayError


def test_frames_come_back_at_their_rate_with_odd_sides_made_even(tmp_path: Path):
    path = tmp_path / "out.mp4"
    greys = (40, 120, 200)
    with writing_video(path, 12.5) as write:
        for grey in greys:
            write(np.full((33, 47, 3), grey, np.uint8))
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 12.5
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in frames] == [(34, 48, 3)] * 3
    for frame, grey in zip(frames, greys, strict=True):
        assert np.abs(frame.astype(int) - grey).max() < 8


def stop_halfway(path: Path) -> None:
    with writing_video(path, 10) as write:
        write(np.zeros((32, 32, 3), np.uint8))
        raise ZeroDivisionError


def test_after_an_error_nothing_is_left_and_what_was_there_stays(tmp_path: Path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"before")
    with pytest.raises(ZeroDivisionError):
        stop_halfway(path)
    assert [each.name for each in tmp_path.iterdir()] == ["out.mp4"]
    assert path.read_bytes() == b"before"


def test_a_file_that_cannot_be_created_is_named(tmp_path: Path):
    path = tmp_path / "none/out.mp4"
    with (
        pytest.raises(MidwayError, match=rf"^{path}: cannot be written \(No such file"),
        writing_video(path, 10),
    ):
        pass


def test_frames_may_have_times_of_their_own(tmp_path: Path):
    path, times = tmp_path / "out.mp4", [0.0, 0.1, 2.5, 2.6]
    with writing_video(path, 10) as write:
        for number, seconds in enumerate(times):
            write(np.full((32, 32, 3), 40 * number, np.uint8), seconds)
    with av.open(str(path)) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx(times)
