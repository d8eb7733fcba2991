"""Videos that stay open: once each, few at a time, and never a stale or broken one."""

import os
from pathlib import Path

import numpy as np
import pytest

from midway.data.clip import BadClipError
from midway.data.video.file import MAX_IDLE, open_video
from tests.data.video.made_videos import even_times, grey, number_of, write_video


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """Locations in the order in which files are opened."""
    from midway.data.video import file

    locations: list[str] = []

    class Counted(file.VideoFile):
        def __init__(self, location: str) -> None:
            locations.append(location)
            super().__init__(location)

    monkeypatch.setattr(file, "VideoFile", Counted)
    return locations


def shown_at(path: Path, seconds: float) -> int:
    with open_video(str(path)) as video:
        return number_of(video.frames_at([seconds])[0].image)


def large(number: int) -> np.ndarray:
    """A noisy picture with a flat, numbered quarter."""
    picture = np.random.default_rng(number).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    picture[:48, :64] = grey(number)
    return picture


def level_at(path: Path, seconds: float) -> int:
    with open_video(str(path)) as video:
        return number_of(video.frames_at([seconds])[0].image[:48, :64])


def test_a_video_is_opened_once(tmp_path, opened):
    path = write_video(tmp_path / "made.mp4", even_times(20))
    assert [shown_at(path, seconds) for seconds in (1.05, 0.35, 1.75)] == [10, 3, 17]
    assert opened == [str(path)]


def test_only_the_latest_stay_open(tmp_path, opened):
    paths = [write_video(tmp_path / f"{n}.mp4", even_times(5)) for n in range(MAX_IDLE + 1)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in paths * 3:
        shown_at(path, 0.25)
    assert len(opened) == 3 * len(paths)
    for path in paths[1:]:
        shown_at(path, 0.25)
    assert len(opened) == 3 * len(paths)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + MAX_IDLE


def test_a_video_in_use_is_not_shared(tmp_path, opened):
    path = write_video(tmp_path / "made.mp4", even_times(20))
    with open_video(str(path)) as one, open_video(str(path)) as other:
        assert one is not other
    with open_video(str(path)) as again:
        assert again in (one, other)
        assert number_of(again.frames_at([1.05])[0].image) == 10
    assert len(opened) == 2


def test_a_reader_that_failed_is_not_used_again(tmp_path, opened):
    path = write_video(tmp_path / "made.mp4", even_times(20))
    with pytest.raises(BadClipError, match="has no frame at"), open_video(str(path)) as video:
        video.frames_at([1000])
    assert shown_at(path, 1.05) == 10
    assert len(opened) == 2


def test_a_file_put_in_the_place_of_another_is_opened(tmp_path, opened):
    path = write_video(tmp_path / "made.mp4", even_times(20))
    assert shown_at(path, 0.05) == 0
    write_video(tmp_path / "new.mp4", even_times(30)).replace(path)
    assert shown_at(path, 2.95) == 29
    assert len(opened) == 2


# torch has threads here (Python 3.12 warns), and Lance may have been imported.
@pytest.mark.filterwarnings("ignore:This process .* use of fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:lance is not fork-safe:UserWarning")
def test_a_forked_process_opens_its_own(tmp_path):
    # Larger than what is read ahead, so that every frame is read from the file.
    path = write_video(tmp_path / "made.mp4", even_times(60), picture=large)
    times = [0.55, 5.55] * 50
    assert level_at(path, 0.55) == 5
    if (child := os.fork()) == 0:
        right = False
        try:
            right = [level_at(path, seconds) for seconds in times] == [5, 55] * 50
        finally:
            os._exit(0 if right else 1)
    levels = [level_at(path, seconds) for seconds in times]
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert levels == [5, 55] * 50
