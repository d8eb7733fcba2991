"""Samples of one, three and eight frames: evenly spaced chains, and only those that are there."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from midway.data.clips.find import find_clips
from midway.data.sampling.samples import ClipDataset, ClipsConfig, Sample
from midway.data.video import decoder
from midway.data.video.header import OpenStream, open_stream
from midway.data.views.spec import ClipSpec, Region
from tests.data.sampling.test_samples import read
from tests.data.video.made_videos import even_times, grey, number_of, write_frames, write_video


@pytest.fixture(scope="module")
def three_clips(tmp_path_factory) -> Path:
    """Two videos of 3 s and 2 s and one folder of frames, all at 10 Hz."""
    root = tmp_path_factory.mktemp("clips")
    write_video(root / "a.mp4", even_times(31))
    write_video(root / "b.mp4", even_times(21))
    write_frames(root / "c", [f"{number}.png" for number in range(16)])
    return root


def clips_of(
    root: Path, num_frames: int, *, fps: float = 10, seed: int = 0, **fields: object
) -> ClipDataset:
    """Samples of whole frames."""
    config = ClipsConfig(root=str(root), fps=fps, **fields)  # pyright: ignore[reportArgumentType]
    spec = ClipSpec(num_frames=num_frames, regions={"frame": Region()})
    found = find_clips(str(root), fps=fps, gap_seconds=config.gap_seconds, num_frames=num_frames)
    return ClipDataset(found, config, spec, seed=seed)


def counts_of(sample: Sample) -> list[int]:
    """Numbers of the frames of a sample; its times are theirs."""
    numbers = [number_of(frame) for frame in sample.regions["frame"]]
    assert sample.seconds == pytest.approx([number / 10 for number in numbers])
    return numbers


@pytest.mark.parametrize("num_frames", [1, 3, 8])
def test_neighbouring_frames_are_one_gap_apart_as_far_as_the_frames_allow(tmp_path, num_frames):
    write_video(tmp_path / "a.mp4", even_times(36))
    dataset = clips_of(tmp_path, num_frames, gap_seconds=(0.3, 0.8), draws_per_clip=4, batch_size=4)
    gaps, starts = set(), set()
    for epoch in range(30):
        for sample in read(dataset, epoch, 0):
            counts = counts_of(sample)
            assert sample.regions["frame"].shape == (num_frames, 48, 64, 3)
            assert len(counts) == num_frames
            gaps |= set(np.diff(counts).tolist())
            starts.add(counts[0])
            # Some gap in the range has every frame within half a count of its multiple.
            places = np.arange(1, num_frames)
            passed = np.array(counts[1:]) - counts[0]
            lowest = max([3.0, *((passed - 0.501) / places)])
            highest = min([8.0, *((passed + 0.501) / places)])
            assert lowest <= highest
    if num_frames > 1:
        assert gaps <= {3, 4, 5, 6, 7, 8}
        assert min(gaps) == 3
        assert max(gaps) == (5 if num_frames == 8 else 8)
    assert starts <= set(range(36 - 3 * (num_frames - 1)))
    assert min(starts) <= 1
    assert max(starts) >= 35 - 3 * (num_frames - 1) - 2


@pytest.mark.parametrize("num_frames", [1, 3, 8])
def test_every_frame_that_enough_others_follow_is_a_start_once(three_clips, num_frames):
    fields = {"gap_seconds": (0.2, 0.4), "starts": "every_frame"}
    dataset = clips_of(three_clips, num_frames, **fields)
    lengths = {"a.mp4": 31, "b.mp4": 21, "c/*.png": 16}
    expected = [
        (name, start)
        for name, length in lengths.items()
        for start in range(length - 2 * (num_frames - 1))
    ]
    assert len(dataset) == len(expected)
    for index in range(0, len(dataset), 5):
        (sample,) = read(dataset, 1, index)
        assert (sample.clip, counts_of(sample)[0]) == expected[index]


def test_frames_with_holes_between_them_give_only_chains_that_are_there(tmp_path):
    counts = [0, 3, 4, 7, 11, 12, 20, 23, 26, 40, 45]
    paths = write_frames(tmp_path, [f"{count:03}.png" for count in counts])
    for path, count in zip(paths, counts, strict=True):
        Image.fromarray(grey(count)).save(path)
    gap = (3, 5)
    chains = {
        (first, second, third)
        for first in counts
        for second in counts
        for third in counts
        if gap[0] <= second - first <= gap[1] and gap[0] <= third - second <= gap[1]
    }
    dataset = clips_of(tmp_path, 3, gap_seconds=(0.3, 0.5), draws_per_clip=2, batch_size=2)
    met = {tuple(counts_of(sample)) for epoch in range(60) for sample in read(dataset, epoch, 0)}
    assert met <= chains
    assert {chain[0] for chain in met} == {chain[0] for chain in chains}
    once = clips_of(tmp_path, 3, gap_seconds=(0.3, 0.5), starts="every_frame")
    firsts = [counts_of(read(once, 0, index)[0])[0] for index in range(len(once))]
    assert firsts == sorted({chain[0] for chain in chains})


def test_a_clip_too_short_for_the_frames_of_a_sample_is_skipped(tmp_path):
    write_video(tmp_path / "long.mp4", even_times(40))
    write_video(tmp_path / "short.mp4", even_times(35))
    dataset = clips_of(tmp_path, 8, gap_seconds=(0.5, 1.0))
    assert [clip.name for clip in dataset.found.clips] == ["long.mp4"]
    (skipped,) = dataset.found.skipped
    assert (skipped.clip, skipped.reason) == (
        "short.mp4",
        f"{tmp_path}/short.mp4: lasts 3.40 s (35 frames), too short for 8 frames 0.5 to 1 s "
        "apart; change --data.gap-seconds or remove it",
    )


class Watched:
    """A container of PyAV that notes the times of its seeks."""

    def __init__(self, container: Any, seeks: list[int]) -> None:
        self.container, self.seeks = container, seeks

    def __getattr__(self, name: str) -> Any:
        return getattr(self.container, name)

    def seek(self, offset: int, **options: Any) -> None:
        self.seeks.append(offset)
        self.container.seek(offset, **options)


@pytest.mark.parametrize("num_frames", [8, 16])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_clip_costs_one_seek_for_each_group_of_pictures_that_it_touches(
    tmp_path, monkeypatch, num_frames, suffix
):
    write_video(tmp_path / f"a.{suffix}", even_times(60), gop=30, settings="scenecut=0")
    dataset = clips_of(tmp_path, num_frames, gap_seconds=(0.1, 0.1), starts="every_frame")
    seeks: list[int] = []

    def watched(location: str) -> OpenStream:
        opened = open_stream(location)
        return replace(opened, container=Watched(opened.container, seeks))

    monkeypatch.setattr(decoder, "open_stream", watched)
    read(dataset, 0, 0)  # opens the file, which seeks once more for its index of keyframes
    for start in (0, 7, 30, 44, 30 - num_frames, 25):
        seeks.clear()
        (sample,) = read(dataset, 0, start)
        counts = counts_of(sample)
        assert counts == [*range(start, start + num_frames)]
        # Keyframes are 0 and 30.
        assert len(seeks) == len({count // 30 for count in counts})
        assert seeks == sorted(seeks)
