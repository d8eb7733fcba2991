"""Clips below a folder, and the error if no clip can be used."""

import errno
import os

import numpy as np
import pytest

from midway.data.clips.find import find_clips
from midway.data.clips.index import INDEX_NAME
from midway.data.clips.store import StoreConfig
from midway.data.clips.timing import start_frames
from midway.data.prepare.index import build_index
from midway.data.prepare.pipeline import prepare
from midway.data.video.file import VideoClip
from midway.errors import MidwayError
from tests.data.video.made_videos import (
    even_times,
    grey,
    number_of,
    waves,
    write_frames,
    write_sound,
    write_video,
)

GAP = (0.5, 1.0)


def test_all_real_videos_and_the_folder_of_frames_are_found(shared_data):
    found = find_clips(str(shared_data / "video"), fps=5, gap_seconds=GAP)
    assert found.total == len(found.clips) == 20
    assert sum(isinstance(clip, VideoClip) for clip in found.clips) == 19
    frames = {clip.name: len(clip.frame_seconds) for clip in found.clips}
    assert frames["kitti_gray_seq1/image_l/*.png"] == 26
    assert frames["sam2/01_dog.mp4"] == 289
    assert frames["intel/car-detection.mp4"] == 377


def test_clips_are_named_below_the_root_in_natural_order(tmp_path):
    for name in (
        "b/clip10.mp4",
        "b/clip9.MP4",
        "a.mkv",
        "b/.hidden.mp4",
        ".git/c.mp4",
        "b/notes.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_video(tmp_path / name, even_times(11)) if "txt" not in name else (
            tmp_path / name
        ).touch()
    write_frames(tmp_path / "frames", [f"{number:03}.png" for number in range(11)])
    found = find_clips(str(tmp_path), fps=10, gap_seconds=GAP)
    names = [clip.name for clip in found.clips]
    assert names == ["a.mkv", "b/clip9.MP4", "b/clip10.mp4", "frames/*.png"]
    assert found.skipped == ()
    for clip in found.clips:
        with clip.open() as reader:
            assert number_of(reader.frames_at([0.55])[0].image) == 5


def test_a_single_video_is_a_root_too(tmp_path):
    path = write_video(tmp_path / "long.mp4", even_times(11))
    (clip,) = find_clips(str(path), fps=30, gap_seconds=GAP).clips
    assert (clip.name, clip.location) == ("long.mp4", str(path))


def test_clips_that_cannot_be_used_are_listed_with_the_reason(tmp_path):
    write_video(tmp_path / "good.mp4", even_times(11))
    write_video(tmp_path / "short.mp4", even_times(4))
    write_video(tmp_path / "single.mp4", [0.0])
    write_sound(tmp_path / "sound.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    write_frames(tmp_path / "frames", ["cover.png"])
    found = find_clips(str(tmp_path), fps=10, gap_seconds=GAP)
    assert [clip.name for clip in found.clips] == ["good.mp4"]
    reasons = {skipped.clip: skipped.reason for skipped in found.skipped}
    assert reasons.keys() == {"short.mp4", "single.mp4", "sound.mp4", "text.mp4", "frames"}
    assert reasons["short.mp4"] == (
        f"{tmp_path}/short.mp4: lasts 0.30 s (4 frames), too short for 2 frames "
        "0.5 to 1 s apart; change --data.gap-seconds or remove it"
    )
    assert "sound.mp4: has no video stream; " in reasons["sound.mp4"]
    assert found.total == 6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "root: does not exist; give an existing folder or"),
        (lambda root: root.mkdir(), "root: contains no files; point data.root"),
        (
            lambda root: (root.mkdir(), (root / "a.txt").touch()),
            "root: contains no video and no image; point data.root",
        ),
        (
            lambda root: (root.mkdir(), (root / "a.mp4").write_text("text")),
            r"root: no usable clip among 1; the first: .*a\.mp4: cannot be read .*; copy",
        ),
        (
            lambda root: (root.mkdir(), write_video(root / "a.mp4", even_times(4))),
            r"root: no clip contains 2 frames 0\.5 to 1 s apart, .* a\.mp4, lasts 0\.30 s; change",
        ),
        (
            lambda root: write_frames(root, ["0.png", "3.png", "90.png"]),
            r"root: no clip contains 2 frames 0\.5 to 1 s apart, .* \*\.png, lasts 9\.00 s; change",
        ),
        (
            lambda root: (root.mkdir(), write_video(root / "a.mp4", [5.0 * n for n in range(9)])),
            r"root: no clip .*, the longest, a\.mp4, has frames 5 s apart; increase --data\.gap",
        ),
    ],
    ids=[
        "missing",
        "empty",
        "no videos",
        "text only",
        "gap longer than the clip",
        "gap never met",
        "time lapse",
    ],
)
def test_a_folder_without_pairs_is_told_in_one_line(tmp_path, make, message):
    make(tmp_path / "root")
    with pytest.raises(MidwayError, match=message) as raised:
        find_clips(str(tmp_path / "root"), fps=10, gap_seconds=GAP)
    assert "\n" not in str(raised.value)


def test_what_is_not_read_is_counted_in_one_line(tmp_path, caplog):
    for number in range(2):
        write_video(tmp_path / f"{number:05}.mp4", even_times(11))
    # A thumbnail has the name of its video.
    write_frames(tmp_path, ["00000.jpg", "00001.webp"])
    for name in ("anim.gif", "a.tar", "b.tar", "00000.signals.npz", "notes"):
        (tmp_path / name).touch()
    found = find_clips(str(tmp_path), fps=10, gap_seconds=GAP)
    assert [clip.name for clip in found.clips] == ["00000.mp4", "00001.mp4"]
    assert found.skipped == ()
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path}: not read as clips: 2 .tar, ")
    assert {"1 .gif", "1 without suffix", "2 images with the name of a video"} < set(
        line.split(": ")[-1].split(", ")
    )


def test_a_single_image_is_named_itself(tmp_path):
    write_video(tmp_path / "a.mp4", even_times(11))
    write_frames(tmp_path, ["poster.png"])
    (skipped,) = find_clips(str(tmp_path), fps=10, gap_seconds=GAP).skipped
    assert skipped.reason.startswith(f"{tmp_path}/poster.png: lasts 0.00 s (1 frame), too short")


def test_videos_behind_links_to_folders_are_found(tmp_path):
    write_video(tmp_path / "a.mp4", even_times(11))
    (tmp_path / "root").mkdir()
    (tmp_path / "root/part").symlink_to(tmp_path)
    found = find_clips(str(tmp_path / "root"), fps=10, gap_seconds=GAP)
    assert [clip.name for clip in found.clips] == ["part/a.mp4"]


@pytest.mark.parametrize("name", ["list.lst", "shard.tar.gz"])
def test_a_file_that_is_no_root_says_what_roots_are(tmp_path, name):
    (tmp_path / name).write_text("a.mp4 0")
    with pytest.raises(MidwayError, match=rf"{name}: is neither a video, a folder, a list"):
        find_clips(str(tmp_path / name), fps=10, gap_seconds=GAP)


def test_videos_that_are_gone_since_the_index_are_counted(tmp_path, caplog):
    for number in range(3):
        write_video(tmp_path / f"{number}.mp4", even_times(11))
    build_index(str(tmp_path), num_workers=0, timeout_seconds=60)
    (tmp_path / "1.mp4").unlink()
    for root in (tmp_path, tmp_path / INDEX_NAME):
        caplog.clear()
        assert len(find_clips(str(root), fps=10, gap_seconds=GAP).clips) == 2
        (line,) = caplog.messages
        assert "1 of 3 videos in its index is gone; write the index again" in line


def test_notes_on_videos_are_told_once_with_and_without_an_index(tmp_path, caplog):
    for number in range(2):
        write_video(tmp_path / f"{number}.ts", even_times(11), settings="sar=4/3")
    find_clips(str(tmp_path), fps=10, gap_seconds=GAP)
    build_index(str(tmp_path), num_workers=0, timeout_seconds=60)
    find_clips(str(tmp_path), fps=10, gap_seconds=GAP)
    line = f"{tmp_path}: in 2 of 2 videos, pixels are not square, and frames come out squeezed"
    assert caplog.messages == [line, line]


def test_a_folder_that_cannot_be_read_is_named_and_not_passed_over(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", even_times(11))
    (tmp_path / "locked").mkdir()
    scan = os.scandir

    def refuse(folder):
        if str(folder).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(MidwayError, match=r"locked: cannot be read \(Permission denied\); make it"):
        find_clips(str(tmp_path), fps=10, gap_seconds=GAP)


@pytest.mark.parametrize("fps", [30, 29.97])
@pytest.mark.parametrize(("gap_seconds", "starts"), [((1, 1), [0, 1, 4]), ((2, 3), [1, 2])])
def test_a_start_has_a_frame_within_the_range_of_gaps(tmp_path, fps, gap_seconds, starts):
    names = [f"{30 * second:04}.png" for second in (0, 1, 2, 4, 5)]
    write_frames(tmp_path, names)
    (clip,) = find_clips(str(tmp_path), fps=fps, gap_seconds=gap_seconds).clips
    expected = [
        start
        for start, seconds in enumerate((0, 1, 2, 4, 5))
        if any(gap_seconds[0] <= other - seconds <= gap_seconds[1] for other in (0, 1, 2, 4, 5))
    ]
    assert start_frames(clip, gap_seconds).tolist() == expected


def test_a_blank_end_is_left_out_and_told_of_when_asked_for(tmp_path, caplog):
    def ends_black(number: int) -> np.ndarray:
        return waves(number) if number < 25 else np.zeros((96, 128, 3), np.uint8)

    write_video(tmp_path / "tail.mp4", even_times(40), picture=ends_black)
    write_video(tmp_path / "whole.mp4", even_times(40), picture=waves)
    write_video(tmp_path / "nothing.mp4", even_times(40), picture=lambda number: grey(0))
    write_frames(tmp_path / "frames", [f"{number}.png" for number in range(11)])

    def lengths(cut: bool) -> dict[str, int]:
        found = find_clips(str(tmp_path), fps=10, gap_seconds=GAP, cut_blank_tail=cut)
        assert found.total == 4
        return {clip.name: len(clip.frame_seconds) for clip in found.clips}

    rest = {"frames/*.png": 11, "whole.mp4": 40}
    assert lengths(False) == {**rest, "tail.mp4": 40, "nothing.mp4": 40}
    assert caplog.messages == []
    assert lengths(True) == {**rest, "tail.mp4": 25}
    (warning,) = caplog.messages
    assert warning.endswith(
        "tail.mp4: blank from 2.50 s to its end at 3.90 s; this part is not used"
    )


def test_a_store_is_a_root_too(tmp_path):
    write_video(tmp_path / "videos.mp4", even_times(31), picture=waves)
    prepare(str(tmp_path / "videos.mp4"), str(tmp_path / "s.lance"), StoreConfig(fps=5), jobs=0)
    (clip,) = find_clips(str(tmp_path / "s.lance"), fps=30, gap_seconds=GAP).clips
    np.testing.assert_allclose(clip.frame_seconds, np.arange(16) / 5)
    assert (clip.name, clip.fps) == ("videos.mp4", 5)
