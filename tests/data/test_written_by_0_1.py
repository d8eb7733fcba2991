"""Indexes and frame stores of version 0.1 open, and give the samples that they gave then."""

import json
import os
import tarfile
from pathlib import Path

import pytest

from midway.data.clips import headers
from midway.data.clips.find import find_clips
from midway.data.clips.index import INDEX_NAME
from midway.data.clips.store import StoreClip
from midway.data.sampling.samples import ClipDataset, ClipsConfig
from midway.data.views.pair_crops import ViewsConfig
from midway.data.workers.pool import Reading

ARCHIVE = Path(__file__).parents[1] / "written_by_0_1" / "clips.tar.xz"
GAP = (0.5, 1.0)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    # An archive keeps times to the microsecond, the index to the nanosecond.
    for line in (tmp_path / "videos" / INDEX_NAME).read_text().splitlines()[1:]:
        record = json.loads(line)
        changed = int(record["modified"])
        os.utime(tmp_path / "videos" / record["name"], ns=(changed, changed))
    return tmp_path


def test_an_index_spares_the_headers_of_its_videos(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headers, "read_header", lambda file, *_: pytest.fail(f"read {file.name}"))
    found = find_clips(str(written / "videos"), fps=30, gap_seconds=GAP)
    assert [clip.name for clip in found.clips] == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("root", ["videos", "frames.lance"])
def test_samples_are_those_of_that_version(written: Path, root: str) -> None:
    found = find_clips(str(written / root), fps=30, gap_seconds=GAP)
    assert isinstance(found.clips[0], StoreClip) is (root == "frames.lance")
    config = ClipsConfig(gap_seconds=GAP)
    dataset = ClipDataset(found, config, ViewsConfig().spec(), seed=0)
    expected = json.loads((written / "choices.json").read_text())[root]
    keys = [(epoch, place) for epoch in range(3) for place in range(2)]
    for key, (clip, *seconds) in zip(keys, expected, strict=True):
        (sample,) = dataset.read(*key, Reading({}, lambda clip: None))
        assert sample.clip == clip
        assert sample.seconds == pytest.approx(seconds)
