"""Samples of clips: which frames they join, and that three numbers decide everything."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from midway.data.clips.find import ClipList, find_clips
from midway.data.sampling.samples import ClipDataset, ClipsConfig, Sample
from midway.data.views.pair_crops import ViewsConfig
from midway.data.workers.pool import Reading
from midway.errors import MidwayError
from tests.data.video.made_videos import cut_short, even_times, number_of, write_frames, write_video


def dataset_of(root: Path, *, fps: float = 10, seed: int = 0, **fields: object) -> ClipDataset:
    config = ClipsConfig(root=str(root), fps=fps, **fields)  # pyright: ignore[reportArgumentType]
    found = find_clips(str(root), fps=fps, gap_seconds=config.gap_seconds)
    return ClipDataset(found, config, ViewsConfig().spec(), seed=seed)


def read(
    dataset: ClipDataset, epoch: int, index: int, lost: dict[str, str] | None = None
) -> list[Sample]:
    return dataset.read(epoch, index, Reading(lost or {}, lambda clip: None))


def numbers_of(sample: Sample) -> tuple[int, int]:
    """Numbers of the frames of a pair, by their grey, the same in all parts of them."""
    motion, *others = sample.regions.values()
    for region in others:
        assert [number_of(part) for part in region] == [number_of(part) for part in motion]
    source, target = motion
    return number_of(source), number_of(target)


@pytest.fixture(scope="module")
def three_clips(tmp_path_factory) -> Path:
    """Two videos of 3 s and 2 s and one folder of frames, all at 10 Hz."""
    root = tmp_path_factory.mktemp("clips")
    write_video(root / "a.mp4", even_times(31))
    write_video(root / "b.mp4", even_times(21))
    write_frames(root / "c", [f"{number}.png" for number in range(16)])
    return root


def test_camvid_pairs_are_the_169_neighbours_a_second_apart(shared_data):
    dataset = dataset_of(
        shared_data / "camvid/train", fps=30, gap_seconds=(1.0, 1.0), starts="every_frame"
    )
    assert len(dataset) == 169
    met = set()
    for index in range(0, 169, 12):
        (sample,) = read(dataset, 0, index)
        assert sample.seconds[1] - sample.seconds[0] == 1.0
        met.add((sample.clip, sample.seconds[0]))
    assert len(met) == 15
    assert {clip for clip, _ in met} == {clip.name for clip in dataset.found.clips}
    first, last = read(dataset, 0, 0)[0], read(dataset, 0, 168)[0]
    assert (first.clip, first.seconds[0]) == ("0001TP_*.png", 0)
    assert (last.clip, last.seconds[1]) == ("0016E5_*.png", 49)


def test_every_frame_of_videos_and_folders_is_a_start_once(three_clips):
    dataset = dataset_of(three_clips, gap_seconds=(0.5, 0.5), starts="every_frame")
    assert len(dataset) == 26 + 16 + 11
    pairs = []
    for index in range(len(dataset)):
        (sample,) = read(dataset, 3, index)
        source, target = numbers_of(sample)
        assert target - source == 5
        assert sample.index == index
        pairs.append((sample.clip, source))
    expected = [("a.mp4", n) for n in range(26)] + [("b.mp4", n) for n in range(16)]
    assert pairs == expected + [("c/*.png", n) for n in range(11)]


def test_random_pairs_keep_the_gap_and_reach_all_of_the_clip(three_clips):
    dataset = dataset_of(three_clips, gap_seconds=(0.3, 0.8), draws_per_clip=4, batch_size=4)
    assert len(dataset) == 3
    last = {"a.mp4": 30, "b.mp4": 20, "c/*.png": 15}
    gaps, starts = set(), {name: set() for name in last}
    for epoch in range(40):
        for index, name in enumerate(last):
            samples = read(dataset, epoch, index)
            numbers = [numbers_of(sample) for sample in samples]
            assert len(samples) == 4
            assert numbers == sorted(numbers, key=lambda pair: pair[0])
            for sample, (number, target) in zip(samples, numbers, strict=True):
                assert sample.clip == name
                assert sample.seconds[0] == pytest.approx(number / 10)
                assert sample.seconds[1] == pytest.approx(target / 10)
                gaps.add(target - number)
                starts[name].add(number)
    assert gaps == {3, 4, 5, 6, 7, 8}
    for name, numbers in starts.items():
        assert numbers <= set(range(last[name] - 2))
        assert min(numbers) <= 1
        assert max(numbers) >= last[name] - 4


def test_a_gap_longer_than_the_clip_is_limited_to_the_clip(tmp_path):
    write_video(tmp_path / "a.mp4", even_times(8))
    dataset = dataset_of(tmp_path, gap_seconds=(0.5, 9.0))
    pairs = {numbers_of(sample) for epoch in range(40) for sample in read(dataset, epoch, 0)}
    assert pairs == {(0, 5), (0, 6), (0, 7), (1, 6), (1, 7), (2, 7)}


def test_a_sample_depends_on_seed_epoch_and_index_alone(three_clips):
    fields = {"gap_seconds": (0.3, 0.8), "draws_per_clip": 2}
    forward, backward = dataset_of(three_clips, **fields), dataset_of(three_clips, **fields)
    keys = [(epoch, index) for epoch in range(3) for index in range(3)]
    some = {key: read(forward, *key) for key in keys}
    np.random.seed(1)  # noqa: NPY002
    drawn = set()
    for key in reversed(keys):
        for sample, other in zip(some[key], read(backward, *key), strict=True):
            assert pickle.dumps(sample) == pickle.dumps(other)
            drawn.add(sample.views.boxes.tobytes())
    assert len(drawn) == 2 * len(keys)
    other_seed = dataset_of(three_clips, seed=1, **fields)
    assert any(
        sample.seconds[0] != other.seconds[0]
        for key in keys
        for sample, other in zip(some[key], read(other_seed, *key), strict=True)
    )


def test_regions_are_the_bytes_of_the_frames_that_the_views_are_made_of(tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    (sample,) = read(dataset_of(tmp_path, fps=2), 0, 0)
    assert list(sample.regions) == ["motion", "initial"]
    for region, (top, left, height, width) in zip(
        sample.regions.values(), sample.views.windows, strict=True
    ):
        expected = frames[:, top : top + height, left : left + width]
        np.testing.assert_array_equal(region, expected)


def test_a_clip_that_ended_a_process_is_not_read_again(three_clips):
    dataset = dataset_of(three_clips)
    (sample,) = read(dataset, 0, 1, {"b.mp4": "crashes"})
    assert sample.clip in ("a.mp4", "c/*.png")
    (skipped,) = sample.skipped
    assert (skipped.clip, skipped.reason) == (
        "b.mp4",
        f"{three_clips}/b.mp4: crashes; re-encode it or remove it",
    )


def test_a_file_that_vanishes_after_it_was_found_gives_way_too(tmp_path):
    for name in ("a", "b"):
        write_frames(tmp_path / name, ["0.png", "1.png"])
    dataset = dataset_of(tmp_path, fps=2)
    shutil.rmtree(tmp_path / "a")
    (sample,) = read(dataset, 0, 0)
    assert (sample.clip, sample.skipped[0].clip) == ("b/*.png", "a/*.png")
    assert f"{tmp_path}/a/0.png: cannot be read" in sample.skipped[0].reason


def test_a_clip_that_fails_gives_way_to_another_and_is_reported(three_clips, tmp_path):
    write_frames(tmp_path / "good", [f"{number}.png" for number in range(16)])
    broken = write_frames(tmp_path / "broken", [f"{number}.png" for number in range(16)])
    for path in broken:
        cut_short(path, 0.5)
    for starts in ("random", "every_frame"):
        dataset = dataset_of(tmp_path, starts=starts)
        (sample,), (again,) = read(dataset, 0, 0), read(dataset, 0, 0)
        assert sample.clip == "good/*.png"
        assert sample.index == 0
        assert pickle.dumps(sample) == pickle.dumps(again)
        (skipped,) = sample.skipped
        assert skipped.clip == "broken/*.png"
        assert "broken/" in skipped.reason
        assert "cannot be read as an image" in skipped.reason
        assert read(dataset, 0, len(dataset) - 1)[0].skipped == ()


def test_a_clip_that_changes_its_size_is_skipped(tmp_path):
    (first, *_) = write_frames(tmp_path / "broken", ["0.png", "1.png"])
    first.write_bytes(write_frames(tmp_path / "good", ["0.png", "1.png"])[0].read_bytes())
    Image.new("RGB", (20, 10)).save(first)
    (sample,) = read(dataset_of(tmp_path, fps=2), 0, 0)
    assert sample.clip == "good/*.png"
    assert "changes its frame size between 0.00 and 0.50 s; resize it" in sample.skipped[0].reason


def test_nothing_but_failing_clips_is_an_error(tmp_path):
    for number in range(12):
        for path in write_frames(tmp_path / f"clip{number}", ["0.png", "1.png"]):
            path.write_text("no picture")
    with pytest.raises(MidwayError, match=r"10 clips in a row could not be read; the last: .*copy"):
        read(dataset_of(tmp_path, fps=2), 0, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gap_seconds": (1.0, 0.5)}, r"data\.gap_seconds = \(1\.0, 0\.5\); give"),
        ({"gap_seconds": (0.0, 0.5)}, r"data\.gap_seconds"),
        ({"fps": 0}, r"data\.fps = 0; give a rate above 0"),
        ({"draws_per_clip": 0}, r"data\.draws_per_clip = 0; give at least 1"),
        ({"draws_per_clip": 2, "starts": "every_frame"}, "with starts = every_frame; give 1"),
        ({"draws_per_clip": 3, "batch_size": 8}, "batch_size = 8 with draws_per_clip = 3; give"),
        ({"batch_size": 0}, r"data\.batch_size = 0"),
        ({"num_workers": -1}, r"data\.num_workers = -1; give 0 or more"),
        ({"read_timeout_seconds": 0}, r"data\.read_timeout_seconds = 0; give a time above 0"),
        ({"max_bad_share": 2}, r"data\.max_bad_share = 2; give a share"),
        ({"num_workers": 10**9}, r"data\.num_workers = 1000000000; give 1024 or less"),
        ({"batch_size": 10**9}, r"data\.batch_size = 1000000000; give 1048576 or less"),
        ({"read_timeout_seconds": 1e300}, r"data\.read_timeout_seconds = 1e\+300; give a day"),
        ({"root": ""}, r"data\.root is empty; give a folder"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(fields, message):
    with pytest.raises(MidwayError, match=message):
        ClipsConfig(**fields)


def test_the_dataset_keeps_the_found_clips(three_clips):
    dataset = dataset_of(three_clips)
    assert isinstance(dataset.found, ClipList)
    assert len(dataset) == dataset.found.total == 3


CHOICES = {
    ("random", 0, 0): ("a.mp4", (0.8, 1.1), (2.2, 2.8)),
    ("random", 0, 1): ("b.mp4", (0.4, 0.9), (0.5, 0.9)),
    ("random", 0, 2): ("c/*.png", (1.0, 1.4), (1.2, 1.5)),
    ("random", 1, 0): ("a.mp4", (0.2, 0.8), (1.7, 2.5)),
    ("random", 5, 2): ("c/*.png", (0.7, 1.0), (0.8, 1.5)),
    ("every_frame", 0, 0): ("a.mp4", (0.0, 0.9)),
    ("every_frame", 0, 1): ("a.mp4", (0.1, 0.7)),
    ("every_frame", 0, 2): ("a.mp4", (0.2, 1.2)),
    ("every_frame", 1, 0): ("a.mp4", (0.0, 0.8)),
    ("every_frame", 5, 2): ("a.mp4", (0.2, 1.0)),
    ("every_frame", 0, 24): ("a.mp4", (2.4, 3.0)),
    ("every_frame", 3, 40): ("b.mp4", (1.4, 2.0)),
}


def test_pairs_are_those_of_version_0_1(three_clips):
    random = {"gap_seconds": (0.3, 0.8), "draws_per_clip": 2}
    datasets = {
        "random": dataset_of(three_clips, seed=7, **random),
        "every_frame": dataset_of(three_clips, seed=7, starts="every_frame"),
    }
    assert [len(dataset) for dataset in datasets.values()] == [3, 53]
    for (starts, epoch, index), (clip, *pairs) in CHOICES.items():
        samples = read(datasets[starts], epoch, index)
        assert [sample.clip for sample in samples] == [clip] * len(pairs)
        assert [sample.seconds for sample in samples] == [pytest.approx(pair) for pair in pairs]
