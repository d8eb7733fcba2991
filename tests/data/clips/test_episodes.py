"""Samples of LeRobot datasets stay within their episodes."""

from pathlib import Path

import pytest

from midway.data.clips.episodes import EpisodeClip
from midway.data.clips.find import find_clips
from midway.data.sampling.samples import ClipDataset, ClipsConfig
from midway.data.views.pair_crops import ViewsConfig
from midway.data.workers.pool import Reading
from midway.errors import MidwayError
from tests.data.video.made_videos import even_times, number_of, write_video

pa = pytest.importorskip("pyarrow")
GAP = (0.5, 1.0)
CAMERA = "videos/observation.images.top"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Three episodes of 2 s at 10 Hz in one file."""
    import pyarrow.parquet as pq

    video = tmp_path / f"robot/{CAMERA}/chunk-000/file-000.mp4"
    table = tmp_path / "robot/meta/episodes/chunk-000/file-000.parquet"
    video.parent.mkdir(parents=True)
    table.parent.mkdir(parents=True)
    write_video(video, even_times(60))
    rows = [
        {
            "episode_index": number,
            f"{CAMERA}/chunk_index": 0,
            f"{CAMERA}/file_index": 0,
            f"{CAMERA}/from_timestamp": 2.0 * number,
            f"{CAMERA}/to_timestamp": 2.0 * number + 2,
        }
        for number in range(3)
    ]
    pq.write_table(pa.Table.from_pylist(rows), table)
    return tmp_path


def test_each_episode_is_a_clip_and_no_sample_leaves_it(dataset):
    found = find_clips(str(dataset), fps=30, gap_seconds=GAP)
    assert [clip.name.rpartition("#")[2] for clip in found.clips] == ["000000", "000001", "000002"]
    assert all(len(clip.frame_seconds) == 20 for clip in found.clips)
    samples = ClipDataset(found, ClipsConfig(root=str(dataset)), ViewsConfig().spec(), seed=0)
    for epoch in range(10):
        for index in range(3):
            (sample,) = samples.read(epoch, index, Reading({}, lambda clip: None))
            source, target = (number_of(image) for image in sample.regions["motion"])
            assert source // 20 == target // 20 == index
            assert sample.seconds == pytest.approx(
                (source / 10 - 2 * index, target / 10 - 2 * index)
            )


def test_frames_of_an_episode_have_times_of_their_own(dataset):
    clip = find_clips(str(dataset), fps=30, gap_seconds=GAP).clips[1]
    assert isinstance(clip, EpisodeClip)
    with clip.open() as reader:
        frames = reader.frames_at([-1, 0.05, 1.95])
    assert [number_of(frame.image) for frame in frames] == [20, 20, 39]
    assert [frame.seconds for frame in frames] == pytest.approx([0, 0, 1.9])


def test_without_a_table_a_warning_says_what_may_happen(dataset, caplog):
    (table,) = dataset.rglob("*.parquet")
    table.write_bytes(b"no table")
    with pytest.raises(MidwayError, match=r"parquet: is not a table of LeRobot episodes"):
        find_clips(str(dataset), fps=30, gap_seconds=GAP)
    table.unlink()
    (clip,) = find_clips(str(dataset), fps=30, gap_seconds=GAP).clips
    assert len(clip.frame_seconds) == 60
    assert "1 video is named as in LeRobot datasets" in caplog.messages[-1]
