"""Preparing a store: what is in it, interruptions of every kind, other stores."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from midway.data.clips.store import StoreConfig, read_store
from midway.data.prepare import writer
from midway.data.prepare.pipeline import PrepareSummary, Progress, find_sources, prepare
from midway.data.prepare.writer import ClipWriter
from midway.data.video.file import VideoFile
from midway.data.workers.pool import Reading
from midway.errors import MidwayError
from tests.data.prepare.stores import has_no_leftovers
from tests.data.video.made_videos import even_times, number_of, waves, write_frames, write_video

CONFIG = StoreConfig(fps=10, short_side=48)
NUM_CLIPS = 10


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten clips whose natural order is not that of their letters."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(NUM_CLIPS):
        write_video(folder / f"clip{number + 3}.mp4", even_times(20 + number, 20), picture=waves)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    destination = str(tmp_path_factory.mktemp("stores") / "whole.lance")
    prepare(str(videos), destination, CONFIG, jobs=0)
    return rows_of(destination)


def rows_of(destination: Path | str) -> pa.Table:
    return lance.dataset(str(destination)).to_table()


def in_small_steps(
    source: Path, destination: Path, tell: Callable[[Progress], None] = lambda progress: None
) -> PrepareSummary:
    """A task for each clip, a commit after each task."""
    return prepare(
        str(source),
        str(destination),
        CONFIG,
        jobs=0,
        report=tell,
        commit_seconds=0,
        task_bytes=1,
    )


def stop_after(number: int) -> Callable[[Progress], None]:
    def tell(progress: Progress) -> None:
        if progress.done == number:
            raise KeyboardInterrupt

    return tell


def psnr(image: np.ndarray, other: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((image.astype(float) - other) ** 2))


def pillow_jpeg(image: np.ndarray) -> np.ndarray:
    """What Pillow's JPEG of quality 90 makes of an image."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=90)
    return np.asarray(Image.open(file))


def test_rows_are_the_frames_of_the_source_within_what_a_jpeg_loses(tmp_path, videos):
    summary = prepare(str(videos), str(tmp_path / "s.lance"), StoreConfig(fps=7), jobs=0)
    clips = read_store(summary.destination)
    assert [clip.name for clip in clips] == [f"clip{number}.mp4" for number in range(3, 13)]
    for clip in clips:
        with VideoFile(str(videos / clip.name)) as video:
            last = video.frames_at([video.duration_seconds])[0].seconds
            asked = np.arange(int(last * 7 + 1e-6) + 1) / 7
            expected = video.frames_at(asked.tolist())
        found = clip.frames_at(asked.tolist())
        assert clip.frame_seconds.tolist() == [frame.seconds for frame in expected]
        for frame, same in zip(found, expected, strict=True):
            assert frame.seconds == same.seconds
            assert psnr(frame.image, same.image) > psnr(pillow_jpeg(same.image), same.image) - 0.5


def test_the_summary_counts_what_the_store_holds(tmp_path, videos):
    destination = tmp_path / "s.lance"
    summary = prepare(str(videos), str(destination), CONFIG, jobs=0)
    table = rows_of(destination)
    assert (summary.clips, summary.new_clips, summary.frames) == (10, 10, table.num_rows)
    assert summary.bytes == sum(file.stat().st_size for file in (destination / "data").iterdir())
    assert (summary.skipped, summary.skipped_list, summary.interrupted) == ((), None, False)
    jpegs = table.column("jpeg").to_pylist()
    assert {jpeg[:2] for jpeg in jpegs} == {b"\xff\xd8"}
    assert set(table.column("height").to_pylist()) == {48}
    assert set(table.column("width").to_pylist()) == {64}


def test_a_source_of_fewer_frames_gives_each_once_with_its_own_time(tmp_path):
    times = [0.0, 0.31, 0.95, 1.0, 1.04, 2.5]
    write_video(tmp_path / "slow.mkv", times)
    prepare(str(tmp_path), str(tmp_path / "s.lance"), CONFIG, jobs=0)
    (clip,) = read_store(str(tmp_path / "s.lance"))
    kept = [0.0, 0.31, 1.0, 1.04, 2.5]  # at 0.95 the next one already counts for 1.0
    assert clip.frame_seconds == pytest.approx(kept, abs=1e-3)
    assert [number_of(clip.frames_at([each + 0.001])[0].image) for each in kept] == [0, 1, 3, 4, 5]


def test_folders_of_frames_are_clips_at_the_rate_of_their_numbers(tmp_path):
    write_frames(tmp_path / "a", [f"{number:03}.png" for number in range(0, 50, 5)])
    write_video(tmp_path / "b.mp4", even_times(5))
    config = StoreConfig(fps=2, source_fps=20)
    prepare(str(tmp_path), str(tmp_path / "s.lance"), config, jobs=0)
    frames, video = read_store(str(tmp_path / "s.lance"))
    assert (frames.name, video.name) == ("a/*.png", "b.mp4")
    assert frames.frame_seconds.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert number_of(frames.frames_at([1.6])[0].image) == 6


@pytest.mark.parametrize("jobs", [1, 2])
def test_any_number_of_processes_gives_the_same_rows(tmp_path, videos, uninterrupted, jobs):
    prepare(str(videos), str(tmp_path / "s.lance"), CONFIG, jobs=jobs)
    assert rows_of(tmp_path / "s.lance").equals(uninterrupted)
    assert has_no_leftovers(tmp_path / "s.lance")


@pytest.mark.parametrize("limit", [1, 5_000, 20_000])
def test_the_size_of_files_changes_nothing(tmp_path, videos, uninterrupted, limit, monkeypatch):
    monkeypatch.setattr(writer, "FRAGMENT_BYTES", limit)
    prepare(str(videos), str(tmp_path / "s.lance"), CONFIG, jobs=0)
    assert rows_of(tmp_path / "s.lance").equals(uninterrupted)


def test_an_interruption_keeps_what_is_complete_and_the_rest_follows(
    tmp_path, videos, uninterrupted
):
    destination = tmp_path / "s.lance"
    for done in (3, 4):
        summary = in_small_steps(videos, destination, stop_after(done))
        assert (summary.interrupted, summary.clips) == (True, done)
    summary = in_small_steps(videos, destination)
    assert (summary.interrupted, summary.clips, summary.new_clips) == (False, 10, 6)
    assert rows_of(destination).equals(uninterrupted)
    assert has_no_leftovers(destination)
    again = prepare(str(videos), str(destination), CONFIG, jobs=2)
    assert (again.clips, again.new_clips, again.frames) == (10, 0, uninterrupted.num_rows)


SCRIPT = """
import sys, time
from midway.data.prepare.pipeline import prepare
from midway.data.clips.store import StoreConfig

print("ready", flush=True)

def tell(progress):
    print(progress.done, flush=True)
    time.sleep(0.03)

prepare(sys.argv[1], sys.argv[2], StoreConfig(fps=10, short_side=48), jobs=0, commit_seconds=0,
        task_bytes=1, report=tell)
"""


@pytest.mark.slow
def test_a_store_killed_at_random_moments_ends_as_if_it_had_not_been(
    tmp_path, videos, uninterrupted
):
    destination = tmp_path / "s.lance"
    rng = np.random.default_rng(0)
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(videos), str(destination)],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        for _ in range(rng.integers(2, 4)):
            process.stdout.readline()
        time.sleep(rng.uniform(0, 0.06))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if destination.exists() and list(destination.glob("_versions/*.manifest")):
            begun = rows_of(destination)
            assert begun.equals(uninterrupted.slice(0, begun.num_rows))
    in_small_steps(videos, destination)
    assert rows_of(destination).equals(uninterrupted)
    assert has_no_leftovers(destination)


def test_a_folder_that_a_kill_left_before_the_first_version_is_taken_over(
    tmp_path, videos, uninterrupted
):
    destination = tmp_path / "s.lance"
    (destination / "_transactions").mkdir(parents=True)
    (destination / "_transactions" / "0-x.txn").write_bytes(b"half")
    in_small_steps(videos, destination)
    assert rows_of(destination).equals(uninterrupted)


def test_a_store_that_cannot_be_cleaned_is_complete_all_the_same(tmp_path, videos, monkeypatch):
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("no right to remove")

    monkeypatch.setattr(lance.LanceDataset, "cleanup_old_versions", refuse)
    with pytest.raises(
        MidwayError, match=r"s\.lance: is complete, but .* \(no right to remove\); "
    ):
        prepare(str(videos), str(tmp_path / "s.lance"), CONFIG, jobs=0)
    assert len(read_store(str(tmp_path / "s.lance"))) == NUM_CLIPS


def test_a_name_that_is_no_text_costs_one_clip(tmp_path, videos):
    shutil.copy(videos / "clip3.mp4", tmp_path / "a.mp4")
    shutil.copy(videos / "clip3.mp4", os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.mp4"))
    summary = prepare(str(tmp_path), str(tmp_path / "s.lance"), CONFIG, jobs=0)
    assert summary.clips == 1
    assert "has a name that is not valid UTF-8; rename it" in summary.skipped[0].reason


def test_a_clip_that_ended_a_worker_is_left_out(tmp_path, videos):
    sources = tuple(each.source for each in find_sources(str(videos), source_fps=30)[:3])
    destination = str(tmp_path / "s.lance")
    prepare(str(videos / "clip3.mp4"), destination, CONFIG, jobs=0)
    announced: list[str] = []
    written = ClipWriter(destination=destination, config=CONFIG)(
        sources, Reading({"clip4.mp4": "ends the process that reads it"}, announced.append)
    )
    (skipped,) = written.skipped
    assert skipped.reason.startswith(f"{videos / 'clip4.mp4'}: ends the process that reads it; ")
    assert announced == ["clip3.mp4", "clip5.mp4"]
    assert written.frames == 10 + 11


@pytest.mark.parametrize(
    "other", [{"fps": 5.0}, {"short_side": 64}, {"jpeg_quality": 80}, {"source_fps": 25.0}]
)
def test_a_store_begun_with_other_settings_is_refused(tmp_path, videos, other):
    destination = str(tmp_path / "s.lance")
    prepare(str(videos / "clip3.mp4"), destination, CONFIG, jobs=0)
    (name,) = other
    option, begun = name.replace("_", "-"), getattr(CONFIG, name)
    with pytest.raises(MidwayError, match=f"was begun with --{option} {begun:g}, not "):
        prepare(str(videos), destination, StoreConfig(**(vars(CONFIG) | other)), jobs=0)


def test_two_processes_that_write_one_store_do_not_both_go_on(tmp_path, videos):
    destination = tmp_path / "s.lance"

    def meanwhile(progress: Progress) -> None:
        if progress.done == 2:
            in_small_steps(videos / "clip9.mp4", destination)

    with pytest.raises(MidwayError, match="another process writes to it"):
        in_small_steps(videos, destination, meanwhile)
    in_small_steps(videos, destination)
    assert len(read_store(str(destination))) == NUM_CLIPS


def test_a_destination_that_is_no_store_is_left_alone(tmp_path, videos):
    def refusal(name: str) -> str:
        with pytest.raises(MidwayError) as error:
            prepare(str(videos), str(tmp_path / name), CONFIG, jobs=0)
        assert "\n" not in str(error.value)
        return str(error.value)

    (tmp_path / "file.lance").write_text("mine")
    (tmp_path / "folder.lance").mkdir()
    (tmp_path / "folder.lance" / "mine.txt").write_text("mine")
    lance.write_dataset(pa.table({"x": [1]}), str(tmp_path / "table.lance"))
    (tmp_path / "below").write_text("mine")
    assert "is a file" in refusal("file.lance")
    assert "cannot be opened as a frame store" in refusal("folder.lance")
    assert "not a frame store" in refusal("table.lance")
    assert "ends in .lance" in refusal("store")
    assert "cannot be created" in refusal("below/s.lance")
    assert [each.name for each in (tmp_path / "folder.lance").iterdir()] == ["mine.txt"]


def test_a_source_without_clips_is_told_with_the_remedy(tmp_path):
    (tmp_path / "notes.txt").write_text("no video")
    for source, message in (
        (tmp_path, "contains no video and no image"),
        (tmp_path / "missing", "does not exist"),
        (tmp_path / "s.lance", "is already a frame store"),
    ):
        with pytest.raises(MidwayError, match=message):
            prepare(str(source), str(tmp_path / "t.lance"), CONFIG, jobs=0)
    assert not (tmp_path / "t.lance").exists()
