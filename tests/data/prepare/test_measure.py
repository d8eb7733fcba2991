"""Measuring layouts: what is counted, what is extrapolated, and which one is advised."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from midway.data.clip import Frame
from midway.data.clips.frame_folder import FrameSequence
from midway.data.clips.store import StoreConfig
from midway.data.prepare.measure import (
    Layout,
    Sampling,
    measure_layouts,
    recommend,
    samples_per_second,
)
from midway.data.prepare.pipeline import prepare
from midway.errors import MidwayError
from tests.data.video.made_videos import cut_short, even_times, noise, waves, write_video

QUICK = Sampling(num_clips=3, timed_seconds=0.0)


class CountingClip(FrameSequence):
    """Notes what it is asked for."""

    def frames_at(self, seconds):
        self.frames_asked.append(list(seconds))
        return [Frame(np.zeros((2, 2, 3), np.uint8), each) for each in seconds]


def counting_clip(last_seconds: float) -> CountingClip:
    clip = CountingClip("a", ("x/0.png",), np.array([0.0, last_seconds]), 10.0)
    object.__setattr__(clip, "frames_asked", [])
    return clip


def test_each_clip_is_opened_for_some_pairs_in_order_of_time():
    clips = [counting_clip(20.0), counting_clip(20.0)]
    sampling = replace(QUICK, draws_per_clip=4, gap_seconds=(0.5, 2.0))
    assert samples_per_second(clips, sampling) > 0
    for clip in clips:
        (asked,) = clip.frames_asked
        starts, ends = np.array(asked).reshape(4, 2).T
        assert (np.diff(starts) >= 0).all()
        assert ((ends - starts >= 0.5) & (ends - starts <= 2.0)).all()
        assert ends.max() <= 20.0


def test_the_frames_of_a_longer_sample_are_evenly_spaced():
    clip = counting_clip(20.0)
    sampling = replace(QUICK, draws_per_clip=3, num_frames=16, gap_seconds=(0.1, 0.2))
    samples_per_second([clip], sampling)
    times = np.array(clip.frames_asked[0]).reshape(3, 16)
    gaps = np.diff(times, axis=1)
    np.testing.assert_allclose(gaps, np.repeat(gaps[:, :1], 15, axis=1))
    assert ((gaps >= 0.1) & (gaps <= 0.2)).all()
    assert (np.diff(times[:, 0]) >= 0).all()


def test_a_clip_shorter_than_the_gap_is_asked_for_no_time_behind_its_end():
    clip = counting_clip(0.3)
    samples_per_second([clip], QUICK)
    assert 0 <= min(clip.frames_asked[0]) <= max(clip.frames_asked[0]) <= 0.3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips of 4 s, alike in bytes, and one that is no video."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):
        write_video(folder / f"{number}.mp4", even_times(41), picture=waves)
    (folder / "bad.mp4").write_text("no video")
    return folder


def test_a_sample_stands_for_the_whole_folder(tmp_path, folder):
    config = StoreConfig(fps=5)
    found = measure_layouts(str(folder), config, QUICK)
    assert [layout.short_side for layout in found.layouts] == [96, 96]
    assert (found.sampled_clips, found.clips) == (3, 5)
    assert found.hours == pytest.approx(16 / 3600, rel=0.01)
    direct, store = found.layouts
    assert direct.gigabytes == sum(file.stat().st_size for file in folder.iterdir()) / 1e9
    assert direct.prepare_core_hours == 0
    assert store.prepare_core_hours > 0
    made = prepare(str(folder), str(tmp_path / "s.lance"), config, jobs=0)
    assert store.gigabytes == pytest.approx(made.bytes / 1e9, rel=0.2)


def test_no_layout_larger_than_the_source_is_tried(tmp_path):
    write_video(tmp_path / "a.mp4", even_times(11), picture=lambda n: np.zeros((400, 64, 3), "u1"))
    write_video(tmp_path / "b.mp4", even_times(11), picture=lambda n: np.zeros((400, 404, 3), "u1"))
    found = measure_layouts(str(tmp_path), StoreConfig(), QUICK)
    assert [layout.short_side for layout in found.layouts] == [400, 360, 400]


def test_a_clip_that_lacks_its_end_is_no_part_of_the_sample(tmp_path):
    for name in ("cut", "whole"):
        write_video(
            tmp_path / f"{name}.mp4",
            even_times(41),
            picture=noise,
            options={"movflags": "faststart"},
        )
    cut_short(tmp_path / "cut.mp4", 0.5)
    found = measure_layouts(str(tmp_path), StoreConfig(), QUICK)
    assert (found.sampled_clips, found.clips) == (1, 2)


def test_a_folder_of_which_nothing_can_be_read_is_told(tmp_path):
    (tmp_path / "bad.mp4").write_text("no video")
    with pytest.raises(MidwayError, match=r"sampled clips can be read; the last: .*bad.mp4"):
        measure_layouts(str(tmp_path), StoreConfig(), QUICK)


def layout(name: str, short_side: int, rate: float) -> Layout:
    return Layout(
        name=name,
        short_side=short_side,
        pairs_per_second=rate,
        gigabytes=1.0,
        prepare_core_hours=1.0,
    )


@pytest.mark.parametrize(
    ("cores", "choice", "why"),
    [
        (200, "files", "no store is needed"),
        (10, "store 720", "its frames are the largest that 10 cores can read at 1000 pairs/s"),
        (4, "store 480", "would need 125 cores"),
        (
            1,
            "store 360",
            "it is the fastest, but 1000 pairs/s need 2 cores, and this machine has 1",
        ),
    ],
)
def test_the_advice_is_the_largest_that_the_cores_can_read(cores, choice, why):
    layouts = [
        layout("files", 720, 8.0),
        layout("store 360", 360, 500.0),
        layout("store 480", 480, 250.0),
        layout("store 720", 720, 120.0),
    ]
    chosen, reason = recommend(layouts, target_pairs_per_second=1000, cores=cores)
    assert chosen.name == choice
    assert why in reason
