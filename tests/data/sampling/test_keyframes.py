"""Samples at keyframes: their frames are keyframes, and gaps and parts are kept."""

from pathlib import Path

import numpy as np
import pytest

from midway.data.clip import BadClipError
from midway.data.clips.find import find_clips
from midway.data.sampling.samples import ClipDataset, ClipsConfig, Sample
from midway.data.views.spec import ClipSpec, Region
from midway.data.workers.pool import Reading
from midway.errors import MidwayError
from tests.data.video.made_videos import even_times, number_of, write_frames, write_video

GOP = 12


def samples_of(
    root: Path, *, count: int = 40, num_frames: int = 2, **options: object
) -> list[Sample]:
    config = ClipsConfig(**{"root": str(root), "fps": 10, "starts": "keyframes"} | options)
    spec = ClipSpec(num_frames=num_frames, regions={"frame": Region()})
    found = find_clips(str(root), fps=10, gap_seconds=config.gap_seconds, num_frames=num_frames)
    dataset = ClipDataset(found, config, spec, seed=0)
    reading = Reading({}, lambda clip: None)
    return [sample for epoch in range(count) for sample in dataset.read(epoch, 0, reading)]


def numbers(sample: Sample) -> list[int]:
    return [number_of(image) for image in sample.regions["frame"]]


@pytest.mark.parametrize(
    ("name", "codec", "settings"),
    [
        ("a.mp4", "libx264", "scenecut=0"),
        ("a.mp4", "libx264", "scenecut=0:open-gop=1:bframes=3"),
        ("a.mkv", "libx264", "scenecut=0"),
        ("a.ts", "libx264", "scenecut=0"),
        ("a.mp4", "libx265", "scenecut=0:keyint=12:min-keyint=12"),
    ],
)
def test_sources_are_all_keyframes_and_targets_any_frames(tmp_path, name, codec, settings):
    write_video(tmp_path / name, even_times(60), codec=codec, gop=GOP, settings=settings)
    pairs = [numbers(sample) for sample in samples_of(tmp_path, draws_per_clip=2, batch_size=2)]
    # The last keyframe, 48, has frames up to 59 after it.
    assert {source for source, _ in pairs} == {0, 12, 24, 36, 48}
    gaps = {target - source for source, target in pairs}
    assert gaps == {5, 6, 7, 8, 9, 10}


def test_targets_are_keyframes_where_the_gaps_contain_one(tmp_path):
    write_video(tmp_path / "a.mp4", even_times(60), gop=GOP, settings="scenecut=0")
    pairs = [numbers(s) for s in samples_of(tmp_path, gap_seconds=(0.5, 1.3), targets="keyframes")]
    assert {(s, t) for s, t in pairs if s < 48} == {(0, 12), (12, 24), (24, 36), (36, 48)}
    assert {s for s, _ in pairs} == {0, 12, 24, 36, 48}
    assert all(5 <= t - s <= 13 for s, t in pairs)
    # The allowed gaps contain no keyframe.
    gaps = [
        target - source
        for source, target in map(
            numbers, samples_of(tmp_path, gap_seconds=(0.5, 1.0), targets="keyframes")
        )
    ]
    assert set(gaps) == {5, 6, 7, 8, 9, 10}


def test_of_several_keyframes_the_one_near_the_drawn_gap_is_taken(tmp_path):
    write_video(tmp_path / "a.mp4", even_times(60), gop=4, settings="scenecut=0:keyint=4")
    sets = samples_of(tmp_path, num_frames=3, gap_seconds=(0.5, 1.4), targets="keyframes", count=60)
    frames = [numbers(sample) for sample in sets]
    inner = [each for each in frames if each[0] < 32]  # near the end no keyframe may fit
    assert {int(step) for each in inner for step in np.diff(each)} == {8, 12}


def test_random_starts_may_have_targets_at_keyframes(tmp_path):
    write_video(tmp_path / "a.mp4", even_times(60), gop=6, settings="scenecut=0")
    pairs = [
        numbers(s) for s in samples_of(tmp_path, starts="random", targets="keyframes", count=60)
    ]
    assert len({source % 6 for source, _ in pairs}) == 6
    near = [(s, t) for s, t in pairs if s < 48]
    assert all(target % 6 == 0 for _, target in near)


def test_images_are_all_keyframes_and_their_draws_those_of_random_starts(tmp_path):
    write_frames(tmp_path, [f"{number}.png" for number in range(30)])
    at_keyframes = samples_of(tmp_path, targets="keyframes")
    at_random = samples_of(tmp_path, starts="random")
    assert [s.seconds for s in at_keyframes] == [s.seconds for s in at_random]


def test_samples_of_a_part_start_at_its_own_keyframes(tmp_path):
    write_video(tmp_path / "a.mp4", even_times(60), gop=GOP, settings="scenecut=0")
    (tmp_path / "list.txt").write_text("a.mp4 1.0 4.1\n")
    sets = samples_of(tmp_path / "list.txt")
    assert {numbers(sample)[0] for sample in sets} == {12, 24}  # 36 has no target in it
    assert {round(10 * sample.seconds[0]) for sample in sets} == {2, 14}


def test_a_part_without_a_keyframe_is_one_line_with_a_remedy(tmp_path):
    write_video(tmp_path / "a.mp4", even_times(60), gop=60, settings="scenecut=0:keyint=60")
    (tmp_path / "list.txt").write_text("a.mp4 1.0 4.1\n")
    message = r"a\.mp4: has no keyframe that a sample can start at; give data\.starts random"
    with pytest.raises(MidwayError, match=message):
        samples_of(tmp_path / "list.txt", count=1)


def test_a_clip_that_cannot_be_read_is_skipped_with_its_reason(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", even_times(31))

    def fail(self: object, seconds: float) -> float:
        raise BadClipError("a.mp4", "is a trap", "avoid it")

    monkeypatch.setattr("midway.data.video.file.VideoFile.keyframe_at", fail)
    with pytest.raises(MidwayError, match=r"the last: a\.mp4: is a trap; avoid it"):
        samples_of(tmp_path, count=1)
