"""Videos that crash, hang or bloat whoever opens them cost one file each."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from midway.data.clip import BadClipError
from midway.data.clips import headers as headers_module
from midway.data.clips.find import find_clips
from midway.data.clips.headers import read_each
from midway.errors import MidwayError
from tests.data.video.made_videos import even_times, waves, write_video


@dataclass(frozen=True)
class Item:
    location: str


def read(item: Item, announce: Callable[[], None]) -> int:
    """Length of the name; some names end the process, or nearly."""
    announce()
    if item.location == "crash":
        ctypes.string_at(0)
    if item.location == "hang":
        ctypes.PyDLL(None).sleep(60)  # in C, and without letting go of Python's lock
    if item.location == "bloat":
        bytearray(2 * headers_module.MAX_BYTES)
    if item.location == "bad":
        raise BadClipError("bad", "is bad", "remove it")
    return len(item.location)


@pytest.mark.timeout(60)
def test_what_crashes_hangs_or_bloats_a_worker_is_an_error_of_its_own():
    names = ["a", "crash", "bb", "hang", "bloat", "bad", "ccc"]
    items = [Item(name) for name in names]
    (results,) = read_each(read, items, num_workers=2, timeout_seconds=1)
    assert [each for each in results if isinstance(each, int)] == [1, 2, 3]
    assert [str(each) for each in results if isinstance(each, BadClipError)] == [
        "crash: ends the process that reads it (SIGSEGV); re-encode it or remove it",
        "hang: takes more than 1 s to read; re-encode it or remove it",
        "bloat: takes more than 2 GiB to open; re-encode it or remove it",
        "bad: is bad; remove it",
    ]


def test_many_files_are_read_in_order_by_any_number_of_workers(monkeypatch):
    monkeypatch.setattr(headers_module, "_FILES_PER_TASK", 3)
    items = [Item("x" * number) for number in range(10)]
    for num_workers in (0, 2):
        groups = list(read_each(read, items, num_workers=num_workers, timeout_seconds=60))
        assert [len(group) for group in groups] == [3, 3, 3, 1]
        assert [length for group in groups for length in group] == list(range(10))


def test_workers_find_the_same_clips_and_a_slow_file_is_given_up(tmp_path):
    for name in ("a.mp4", "b.mkv"):
        write_video(tmp_path / name, even_times(20), picture=waves)
    (tmp_path / "text.mp4").write_text("no video")
    settings = {"fps": 10, "gap_seconds": (0.5, 1.0), "cut_blank_tail": True}
    found = find_clips(str(tmp_path), **settings)
    assert find_clips(str(tmp_path), num_workers=1, timeout_seconds=60, **settings) == found
    with pytest.raises(MidwayError, match=r"a\.mp4: takes more than 1e-05 s to read; re-encode"):
        find_clips(str(tmp_path), num_workers=1, timeout_seconds=1e-5, **settings)
