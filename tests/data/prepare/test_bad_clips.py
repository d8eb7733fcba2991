"""Preparing a store of clips some of which are bad: they are left out, listed and tried again."""

import json
import shutil
from pathlib import Path

import pytest

from midway.data.clips.store import StoreConfig, read_store
from midway.data.prepare import writer
from midway.data.prepare.pipeline import prepare
from tests.data.prepare.stores import has_no_leftovers
from tests.data.video.made_videos import cut_short, even_times, noise, write_sound, write_video

CONFIG = StoreConfig(fps=10, short_side=48)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two good clips, and one of each kind of bad one."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    write_video(folder / "a.mp4", even_times(10))
    write_video(folder / "z.mp4", even_times(12))
    (folder / "empty.mp4").touch()
    (folder / "text.mov").write_text("no video")
    write_sound(folder / "sound.mp4")
    cut_short(write_video(folder / "cut.mkv", even_times(50), picture=noise), 0.5)
    (folder / "frames").mkdir()
    for name in ("1.png", "2.png"):
        (folder / "frames" / name).write_bytes(b"no image")
    return folder


BAD = ["cut.mkv", "empty.mp4", "frames/*.png", "sound.mp4", "text.mov"]


def test_bad_clips_are_left_out_and_listed_with_reasons(tmp_path, mixed):
    summary = prepare(str(mixed), str(tmp_path / "s.lance"), CONFIG, jobs=0)
    assert [clip.name for clip in read_store(summary.destination)] == ["a.mp4", "z.mp4"]
    assert [skipped.clip for skipped in summary.skipped] == BAD
    assert all(str(mixed) in skipped.reason for skipped in summary.skipped)
    assert summary.skipped_list == str(tmp_path / "s.lance.skipped.jsonl")
    lines = [json.loads(line) for line in Path(summary.skipped_list).read_text().splitlines()]
    assert [line["clip"] for line in lines] == BAD
    assert [line["reason"] for line in lines] == [skipped.reason for skipped in summary.skipped]


def test_bad_clips_are_tried_again(tmp_path, mixed):
    prepare(str(mixed), str(tmp_path / "s.lance"), CONFIG, jobs=0)
    write_video(mixed / "empty.mp4", even_times(6))
    for name in ("text.mov", "sound.mp4", "cut.mkv"):
        (mixed / name).unlink()
    shutil.rmtree(mixed / "frames")
    summary = prepare(str(mixed), str(tmp_path / "s.lance"), CONFIG, jobs=0)
    assert [clip.name for clip in read_store(summary.destination)] == [
        "a.mp4",
        "z.mp4",
        "empty.mp4",
    ]
    assert (summary.new_clips, summary.skipped, summary.skipped_list) == (1, (), None)
    assert not (tmp_path / "s.lance.skipped.jsonl").exists()


def test_a_long_clip_that_ends_badly_leaves_nothing(tmp_path, mixed, monkeypatch):
    monkeypatch.setattr(writer, "FRAGMENT_BYTES", 20_000)
    destination = tmp_path / "s.lance"
    prepare(str(mixed), str(destination), CONFIG, jobs=0)
    assert [clip.name for clip in read_store(str(destination))] == ["a.mp4", "z.mp4"]
    assert has_no_leftovers(destination)
