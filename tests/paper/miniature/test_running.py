"""Running of cells: the same number again, within a budget too; controls; flow finetuning."""

import time
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from midway.data.images import read_image
from midway.data.video.file import open_video
from midway.errors import DivergedError, MidwayError
from midway.paper.miniature import running
from midway.paper.miniature.arms import arms_by_name
from midway.paper.miniature.folders import training_folder
from midway.paper.miniature.readouts import readouts
from midway.paper.miniature.records import Cell, Record, read_records, write_record
from midway.paper.miniature.running import Places, run_cell
from tests.paper.miniature.micro import MICRO


@pytest.fixture(autouse=True)
def threads():
    """Restore the number of threads, which a cell sets to one."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def places_in(folder: Path) -> Places:
    return Places(work=folder / "work")


def cell_of(arm: str, **changes) -> Cell:
    cell = Cell(purpose="report", dataset="synthetic", arm=arm, seed=0, trial=1)
    return replace(cell, **changes)


def run(cell: Cell, folder: Path) -> Record:
    record = run_cell(cell, MICRO, places_in(folder), deadline=inf)
    assert record is not None
    return record


def test_a_protocol_may_read_out_in_windows(tmp_path):
    protocol = replace(MICRO, window_readout=32)
    for arm in ("untrained", "filters"):
        record = run_cell(cell_of(arm), protocol, places_in(tmp_path), deadline=inf)
        assert record is not None
        assert record.scores["windows"] > 0
        # Filters have no class token that could be left out.
        without = record.rows["window_patches"]
        assert (without == record.rows["windows"]) == (arm == "filters")


def test_a_cell_gives_the_same_numbers_again_and_with_any_budget(tmp_path):
    cell = cell_of("midway")
    first = run(cell, tmp_path / "first")
    # A deadline in the past ends each call after one step.
    places = places_in(tmp_path / "second")
    assert run_cell(cell, MICRO, places, deadline=time.monotonic()) is None
    second = run_cell(cell, MICRO, places, deadline=time.monotonic())
    assert second is not None
    assert second.rows == first.rows
    assert second.losses == first.losses
    assert set(first.scores) == {
        *("linear", "knn", "near", "flow", "masks", "jaccard", "position", "heatmap")
    }
    assert len(first.rows["near"]) == MICRO.test_worlds


@pytest.mark.parametrize("arm", ["untrained", "filters", "pixels", "labels"])
def test_arms_without_a_method_are_scored_too(tmp_path, arm):
    record = run(cell_of(arm), tmp_path)
    assert record.steps == (2 if arm == "labels" else 0)
    assert {"linear", "near", "flow", "masks", "jaccard"} <= set(record.scores)
    assert "heatmap" not in record.scores


def test_no_motion_has_the_length_of_the_flow_as_its_error_and_no_features(tmp_path):
    record = run(cell_of("still"), tmp_path)
    assert {*record.scores} == {"flow", "masks", "jaccard", "position"}
    pairs = readouts(MICRO, "synthetic", "report", None).pairs
    assert pairs is not None
    lengths = pairs.flow.norm(dim=1)
    true = [flow[~hidden].mean() for flow, hidden in zip(lengths, pairs.occluded, strict=True)]
    assert record.scores["flow"] == pytest.approx(float(sum(true) / len(true)), rel=1e-3)
    assert 0 < record.scores["masks"] <= 100


def test_flow_is_finetuned_from_the_same_pretraining(tmp_path):
    pretrained = run(cell_of("croco"), tmp_path)
    record = run(cell_of("croco", purpose="flow", rate=2), tmp_path)
    assert [*record.scores] == ["finetuned"]
    assert record.losses == pretrained.losses
    assert len(record.rows["finetuned"]) == MICRO.test_worlds
    other = run(cell_of("untrained", purpose="flow", rate=2), tmp_path)
    assert other.scores != record.scores


def test_a_diverged_training_is_a_record(tmp_path, monkeypatch):
    def diverge(job, deadline):
        raise DivergedError("loss not finite")

    monkeypatch.setattr(running, "train", diverge)
    record = run(cell_of("dino"), tmp_path)
    assert (record.failure, record.scores) == ("diverged", {})


def test_a_record_is_read_as_it_was_written_and_no_other_protocol_is(tmp_path):
    record = run(cell_of("untrained"), tmp_path)
    write_record(record, tmp_path / "records")
    (again,) = read_records(tmp_path / "records", MICRO)
    assert again == record
    with pytest.raises(MidwayError, match="give another --records"):
        read_records(tmp_path / "records", replace(MICRO, steps=3))
    write_record(replace(record, config="other"), tmp_path / "records")
    with pytest.raises(MidwayError, match="its arm has changed"):
        read_records(tmp_path / "records", MICRO)


def test_shuffled_frames_are_those_of_other_clips(tmp_path):
    names = ["a_f00000.png", "a_f00030.png", "b_f00000.png", "b_f00030.png"]
    (tmp_path / "train").mkdir()
    for number, name in enumerate(names):
        Image.new("RGB", (48, 36), (50 * number,) * 3).save(tmp_path / "train" / name)
    small = replace(MICRO, camvid_size=(24, 32))
    plain, shuffled = (
        [
            int(read_image(str(path)).mean())
            for path in sorted(
                training_folder(
                    *(small, "camvid", arms_by_name()[arm], 2),
                    data=tmp_path / "data",
                    camvid=tmp_path,
                ).glob("*.png")
            )
        ]
        for arm in ("midway", "shuffled")
    )
    assert plain == [0, 50, 100, 150]
    assert sorted(shuffled) == plain
    assert shuffled != plain


def test_shuffled_videos_show_at_each_time_a_frame_of_some_video_of_that_time(tmp_path):
    plain, shuffled = (
        training_folder(MICRO, "synthetic", arms_by_name()[arm], 0, data=tmp_path, camvid=None)
        for arm in ("midway", "shuffled")
    )
    videos = sorted(path.name for path in plain.iterdir())
    assert len(videos) == MICRO.num_videos
    assert videos == sorted(path.name for path in shuffled.iterdir())
    seconds = [number / MICRO.world.fps for number in range(0, 45, 4)]
    own, mixed = (
        np.stack([frames_of(folder / name, seconds) for name in videos])
        for folder in (plain, shuffled)
    )
    # (videos, videos, times): mean difference of the frames of two videos at a time
    apart = np.abs(mixed[:, None] - own[None]).mean((3, 4, 5))
    shown = apart.argmin(1)
    assert (np.sort(shown, axis=0) == np.arange(len(videos))[:, None]).all()
    assert 0 < (shown[0] == 0).sum() < len(seconds)


def frames_of(path: Path, seconds: list[float]) -> np.ndarray:
    with open_video(str(path)) as video:
        return np.stack([frame.image.astype(float) for frame in video.frames_at(seconds)])
