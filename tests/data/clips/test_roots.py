"""Roots besides folders: lists of videos with parts, patterns of names, and tar files."""

import random
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest

from midway.data.clip import SignalSource
from midway.data.clips.find import find_clips
from midway.data.clips.index import index_of
from midway.data.clips.roots import Selection
from midway.data.prepare.index import build_index
from midway.data.prepare.pipeline import find_sources
from midway.data.signals import read_signals
from midway.data.video.file import VideoFile
from midway.errors import MidwayError
from tests.data.video.made_videos import even_times, number_of, write_frames, write_video
from tests.fuzz.mutations import mutate

GAP = (0.5, 1.0)


def names_of(root: Path | str, **selection: tuple[str, ...]) -> list[str]:
    found = find_clips(str(root), fps=10, gap_seconds=GAP, selection=Selection(**selection))
    return [clip.name for clip in found.clips]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Three videos of 3 s in two folders."""
    for name in ("front/a.mp4", "front/b c.mp4", "rear/a.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_video(tmp_path / name, even_times(31))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "front/a.mp4\n\n# not this one: rear/b.mp4\nfront/b c.mp4\n"),
        ("list.csv", "front/a.mp4 0\nfront/b c.mp4 17\n"),
        ("list.CSV", 'front/a.mp4,0\r\n"front/b c.mp4",walking\r\n'),
        ("list.tsv", "\ufefffront/a.mp4\tdog\nfront/b c.mp4\tcat\n"),
        ("list.txt", "{0}/front/a.mp4 3\n{0}/front/b c.mp4 4\n"),
    ],
)
def test_the_videos_of_a_list_are_read_in_all_usual_forms(videos, name, text):
    (videos / name).write_text(text.format(videos), encoding="utf-8")
    found = find_clips(str(videos / name), fps=10, gap_seconds=GAP)
    prefix = f"{videos}/" if "{" in text else ""
    assert [clip.name for clip in found.clips] == [f"{prefix}front/a.mp4", f"{prefix}front/b c.mp4"]
    assert [Path(clip.location) for clip in found.clips] == [
        videos / "front/a.mp4",
        videos / "front/b c.mp4",
    ]
    assert found.skipped == ()


def test_parts_of_videos_are_clips_with_times_and_signals_of_their_own(videos):
    seconds = np.arange(31) / 10
    np.savez(videos / "rear/a.signals.npz", seconds=seconds, speed=seconds * 10)
    (videos / "parts.csv").write_text(
        "rear/a.mp4 0 0 1.5\nrear/a.mp4,7,1.5,3\nrear/a.mp4 2 2.5\nfront/a.mp4 1\n"
    )
    found = find_clips(str(videos / "parts.csv"), fps=10, gap_seconds=GAP)
    assert [clip.name for clip in found.clips] == [
        *("front/a.mp4", "rear/a.mp4#0-1.5", "rear/a.mp4#1.5-3")
    ]
    (short,) = found.skipped
    assert "rear/a.mp4#2-2.5" in short.clip
    assert "lasts 0.40 s (5 frames), too short" in short.reason
    _, first, second = found.clips
    assert (len(first.frame_seconds), len(second.frame_seconds)) == (15, 15)
    with second.open() as reader:
        frames = reader.frames_at([0, 1.4])
    assert [number_of(frame.image) for frame in frames] == [15, 29]
    assert [frame.seconds for frame in frames] == pytest.approx([0, 1.4])
    assert second.signals == SignalSource(str(videos / "rear/a.signals.npz"), 1.5)
    assert read_signals(second, {"speed": ()}, [0.0, 1.4])["speed"].tolist() == [15, 29]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("front/a.mp4\npath label\n", r"line 2 is 'path label'; give the path of a video"),
        ("front/a.mp4 0 5 4\n", r"line 1 is 'front/a.mp4 0 5 4'; .*a start and an end"),
        ("front/a.mp4 0 -1 4\n", r"line 1 is 'front/a.mp4 0 -1 4'"),
        ("front/a.mp4 dog cat\n", r"line 1 is 'front/a.mp4 dog cat'"),
        ("front/a.mp4 1 2 3 4\n", r"line 1 is 'front/a.mp4 1 2 3 4'"),
        ("front/a.mp4 0 nan nan\n", r"line 1 is 'front/a.mp4 0 nan nan'"),
        ("front/a.mp4\nfront/a.mp4 3\n", r"line 2 repeats front/a.mp4; remove it"),
        ("front\0/a.mp4\n", r"line 1 is .*; give the path of a video"),
        ("# nothing\n", r"lists no video; write the path of one on each line"),
        ("front/a\0.mp4\n", r"line 1 is 'front/a\\x00.mp4'"),
        (b"\xff\xfe\x00", r"cannot be read as a list of videos \(.*utf-8"),
    ],
)
def test_a_list_that_is_none_is_one_line(videos, text, message):
    path = videos / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(MidwayError, match=message) as error:
        find_clips(str(path), fps=10, gap_seconds=GAP)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_videos_of_a_list_that_are_missing_or_too_short_are_skipped_with_a_reason(videos):
    (videos / "list.txt").write_text("front/a.mp4\ngone.mp4\nrear/a.mp4 60 70\n")
    found = find_clips(str(videos / "list.txt"), fps=10, gap_seconds=GAP)
    assert [clip.name for clip in found.clips] == ["front/a.mp4"]
    reasons = {skip.clip: skip.reason for skip in found.skipped}
    assert "gone.mp4: cannot be read as video (No such file" in reasons["gone.mp4"]
    assert "has no frame from 60 to 70 s; correct the list" in reasons["rear/a.mp4#60-70"]


def test_a_list_has_an_index_beside_it_and_can_be_prepared(videos, caplog):
    (videos / "list.csv").write_text("front/a.mp4 0\nrear/a.mp4 1 0.5 3\n")
    summary = build_index(str(videos / "list.csv"), num_workers=0, timeout_seconds=60)
    assert (
        summary.file
        == index_of(str(videos / "list.csv"))
        == f"{videos}/list.csv.midway-index.jsonl"
    )
    for root in (videos / "list.csv", Path(summary.file)):
        assert names_of(root) == ["front/a.mp4", "rear/a.mp4#0.5-3"]
    assert caplog.messages == []
    sources = find_sources(str(videos / "list.csv"), source_fps=30)
    assert [each.source.name for each in sources] == ["front/a.mp4", "rear/a.mp4"]
    assert "a frame store contains whole videos" in caplog.messages[-1]


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        ({"include": ("front/*",)}, ["front/a.mp4", "front/b c.mp4"]),
        ({"include": ("*a.mp4",)}, ["front/a.mp4", "rear/a.mp4"]),
        ({"exclude": ("front/*",)}, ["rear/a.mp4"]),
        ({"include": ("front/*", "rear/*"), "exclude": ("*/a.*",)}, ["front/b c.mp4"]),
    ],
)
def test_patterns_choose_files_by_name(videos, caplog, selection, names):
    assert names_of(videos, **selection) == names
    assert caplog.messages == []


def test_patterns_that_match_nothing_are_named(videos, caplog):
    assert len(names_of(videos, exclude=("left/*",))) == 3
    assert caplog.messages == [f"data.exclude: left/* matches no file below {videos}"]
    with pytest.raises(MidwayError, match=r"leave none of 3 files, the first of which is front/a"):
        names_of(videos, include=("left/*",))


def write_shards(folder: Path, source: Path) -> None:
    """Two tar files, as WebDataset writes them: a video with its label, and frames."""
    for number, name in enumerate(("front/a.mp4", "rear/a.mp4")):
        with tarfile.open(folder / f"shard-{number}.tar", "w") as tar:
            tar.add(source / name, arcname=f"./{number}.mp4")
            (source / "label.cls").write_text("7")
            tar.add(source / "label.cls", arcname=f"{number}.cls")
    write_frames(source / "frames", [f"{number:03}.png" for number in range(12)])
    with tarfile.open(folder / "shard-2.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(source / "frames", arcname="walk " + "w" * 120)


def test_videos_and_frames_in_tar_files_are_read_in_place(videos, tmp_path_factory):
    shards = tmp_path_factory.mktemp("shards")
    write_shards(shards, videos)
    found = find_clips(str(shards), fps=10, gap_seconds=GAP)
    walk = "walk " + "w" * 120
    assert [clip.name for clip in found.clips] == [
        *("shard-0.tar/0.mp4", "shard-1.tar/1.mp4", f"shard-2.tar/{walk}/*.png")
    ]
    times = [0.0, 0.7, 1.0]
    with VideoFile(str(videos / "rear/a.mp4")) as video:
        expected = [frame.image for frame in video.frames_at(times)]
    with found.clips[1].open() as reader:
        for frame, image in zip(reader.frames_at(times), expected, strict=True):
            assert (frame.image == image).all()
    with found.clips[2].open() as reader:
        assert [number_of(frame.image) for frame in reader.frames_at(times)] == [0, 7, 10]
    assert [clip.signals for clip in found.clips] == [None] * 3
    assert found.clips[2].location == str(shards / "shard-2.tar")
    assert names_of(shards / "shard-0.tar") == ["0.mp4"]


def test_lists_and_tar_files_are_read_over_urls_too(videos, tmp_path_factory):
    shards = tmp_path_factory.mktemp("shards")
    write_shards(shards, videos)
    (videos / "list.csv").write_text("front/a.mp4 0\nrear/a.mp4 1 0.5 3\n")
    memory = fsspec.filesystem("memory")
    for folder in (videos, shards):
        memory.put(str(folder), str(folder), recursive=True)
    assert names_of(f"memory://{videos}/list.csv") == ["front/a.mp4", "rear/a.mp4#0.5-3"]
    found = find_clips(f"memory://{shards}", fps=10, gap_seconds=GAP)
    assert len(found.clips) == 3
    for clip, number in zip(found.clips, (7, 7, 7), strict=True):
        with clip.open() as reader:
            assert number_of(reader.frames_at([0.7])[0].image) == number


def test_a_video_in_a_tar_file_that_is_damaged_is_named_with_it(videos, tmp_path_factory):
    shards = tmp_path_factory.mktemp("shards")
    (videos / "bad.mp4").write_bytes((videos / "front/a.mp4").read_bytes()[:500])
    with tarfile.open(shards / "a.tar", "w") as tar:
        tar.add(videos / "front/a.mp4", arcname="a.mp4")
        tar.add(videos / "bad.mp4", arcname="bad.mp4")
    found = find_clips(str(shards), fps=10, gap_seconds=GAP)
    (skipped,) = found.skipped
    assert skipped.clip == "a.tar/bad.mp4"
    assert f"{shards}/a.tar@" in skipped.reason
    assert "/bad.mp4: cannot be read as video" in skipped.reason


def test_a_tar_file_that_is_cut_or_none_is_one_line(videos, tmp_path):
    write_shards(tmp_path, videos)
    whole = (tmp_path / "shard-0.tar").read_bytes()
    for content in (whole[:2000], b"no tar file"):
        (tmp_path / "bad.tar").write_bytes(content)
        with pytest.raises(MidwayError, match=r"bad\.tar: cannot be read as a tar file") as error:
            find_clips(str(tmp_path / "bad.tar"), fps=10, gap_seconds=GAP)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["list.csv", "a.tar"])
def test_mutated_lists_and_tar_files_end_in_clips_or_one_line(videos, tmp_path, name):
    (videos / "list.csv").write_text('front/a.mp4 0 0 1.5\n"front/b c.mp4",7,1.5,3\nrear/a.mp4\n')
    with tarfile.open(videos / "a.tar", "w") as tar:
        tar.add(videos / "front", arcname="front")
    sound = (videos / name).read_bytes()
    num_read, messages = 0, []
    for number in range(60):
        (tmp_path / name).write_bytes(mutate(sound, random.Random(number)))
        try:
            for clip in find_clips(str(tmp_path / name), fps=10, gap_seconds=GAP).clips:
                with clip.open() as reader:
                    reader.frames_at([0.0, 0.5])
            num_read += 1
        except MidwayError as error:
            messages.append(str(error))
    assert num_read
    assert messages
    assert not [message for message in messages if "\n" in message]
