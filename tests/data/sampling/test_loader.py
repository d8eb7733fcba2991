"""Batches by step: the same samples for any workers, processes and restarts; bad clips counted."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from midway.data.clip import BadClipError
from midway.data.clips.find import find_clips
from midway.data.sampling.loader import ClipBatch, ClipLoader
from midway.data.sampling.samples import ClipDataset, ClipsConfig
from midway.data.views.pair_crops import ViewsConfig
from midway.errors import MidwayError
from tests.data.video.made_videos import even_times, write_frames, write_video


def loader_of(
    root: Path,
    *,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    folder: Path | None = None,
    **fields: object,
) -> ClipLoader:
    defaults = {"root": str(root), "fps": 10, "batch_size": 4, "num_workers": 0}
    config = ClipsConfig(**{**defaults, **fields})  # pyright: ignore[reportArgumentType]
    found = find_clips(str(root), fps=config.fps, gap_seconds=config.gap_seconds)
    dataset = ClipDataset(found, config, ViewsConfig().spec(), seed=seed)
    return ClipLoader(dataset, rank=rank, world_size=world_size, folder=folder)


@pytest.fixture(scope="module")
def ten_clips(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    for number in range(5):
        write_video(root / f"video{number}.mp4", even_times(16))
        write_frames(root / f"frames{number}", [f"{frame}.png" for frame in range(16)])
    return root


def shown(batch: ClipBatch, region: str, place: int) -> NDArray[np.uint8]:
    """Part of a sample's frames without the padding of its batch, (frames, 3, height, width)."""
    _, _, height, width = batch.views.windows[list(batch.regions).index(region), place]
    return batch.regions[region][:, place, :, :height, :width].numpy()


def samples_of(batch: ClipBatch) -> list[tuple]:
    """All that a batch says, sample by sample."""
    return [
        (
            batch.indices[place],
            batch.clips[place],
            *batch.seconds[:, place],
            *(shown(batch, region, place).tobytes() for region in batch.regions),
            *(values[:, place].numpy().tobytes() for values in batch.signals.values()),
            batch.views.boxes[:, place].tobytes(),
            batch.views.flip[:, place].tobytes(),
        )
        for place in range(len(batch))
    ]


@pytest.fixture(scope="module")
def reference(ten_clips) -> list[list[tuple]]:
    """Steps 0 to 6 of one process that reads by itself."""
    return [samples_of(batch) for batch in loader_of(ten_clips, draws_per_clip=2).batches(0, 7)]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(ten_clips, reference, num_workers):
    loader = loader_of(ten_clips, draws_per_clip=2, num_workers=num_workers)
    assert [samples_of(batch) for batch in loader.batches(0, 7)] == reference


def test_batches_of_many_tasks_are_the_same_too(ten_clips):
    """A worker goes on with its next tasks before the batch of the first ones is put together."""
    fields = {"draws_per_clip": 4, "batch_size": 80}
    alone, shared = (
        [samples_of(b) for b in loader_of(ten_clips, num_workers=n, **fields).batches(0, 4)]
        for n in (0, 2)
    )
    assert alone == shared


def test_processes_share_out_the_same_batch(ten_clips, reference):
    ranks = [
        loader_of(ten_clips, draws_per_clip=2, rank=rank, world_size=2).batches(0, 7)
        for rank in range(2)
    ]
    for whole, *parts in zip(reference, *ranks, strict=True):
        assert [len(part) for part in parts] == [2, 2]
        assert sorted(each for part in parts for each in samples_of(part)) == sorted(whole)


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_later_start_goes_on_with_the_same_batches_on_any_number_of_processes(
    ten_clips, reference, world_size
):
    ranks = [
        loader_of(ten_clips, draws_per_clip=2, rank=rank, world_size=world_size).batches(3, 7)
        for rank in range(world_size)
    ]
    for whole, *parts in zip(reference[3:], *ranks, strict=True):
        assert sorted(each for part in parts for each in samples_of(part)) == sorted(whole)


def test_a_pass_contains_every_item_once_for_any_number_of_processes(ten_clips):
    for world_size in (1, 2, 4):
        loaders = [
            loader_of(ten_clips, rank=rank, world_size=world_size) for rank in range(world_size)
        ]
        keys = [key for step in range(10) for loader in loaders for key in loader.keys(step)]
        assert sorted(keys) == [(epoch, index) for epoch in range(4) for index in range(10)]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_rest_of_an_epoch_is_read_once_by_any_number_of_processes(ten_clips, world_size):
    fields = {"starts": "every_frame", "gap_seconds": (0.8, 0.8), "batch_size": 16}
    before = [index for step in (0, 1) for _, index in loader_of(ten_clips, **fields).keys(step)]
    left = [
        index
        for rank in range(world_size)
        for batch in loader_of(ten_clips, rank=rank, world_size=world_size, **fields).batches(2, 5)
        for index in batch.indices
    ]
    assert len(before) == 32
    assert sorted(before + left) == list(range(80))


def test_every_pass_and_seed_has_its_own_order(ten_clips):
    orders = set()
    for seed in (0, 1):
        loader = loader_of(ten_clips, seed=seed, batch_size=10)
        orders |= {tuple(index for _, index in loader.keys(step)) for step in range(3)}
    assert len(orders) == 6
    assert tuple(range(10)) not in orders


@pytest.mark.parametrize(("batch_size", "draws", "steps"), [(4, 1, 2), (4, 2, 2), (100, 5, 1)])
def test_an_epoch_is_as_many_samples_as_there_are_clips(ten_clips, batch_size, draws, steps):
    loader = loader_of(ten_clips, batch_size=batch_size, draws_per_clip=draws)
    assert loader.steps_per_epoch == steps


def test_a_batch_larger_than_a_pass_goes_on_into_the_next(ten_clips):
    keys = loader_of(ten_clips, batch_size=25).keys(0)
    assert [epoch for epoch, _ in keys] == [0] * 10 + [1] * 10 + [2] * 5


def test_smaller_frames_are_padded_below_and_to_the_right(tmp_path):
    def bright(size):
        return lambda number: np.full((*size, 3), 200, np.uint8)

    write_video(tmp_path / "high.mp4", even_times(11), picture=bright((64, 32)))
    write_video(tmp_path / "wide.mp4", even_times(11), picture=bright((32, 96)))
    (batch,) = loader_of(tmp_path, batch_size=2).batches(0, 1)
    for images, windows in zip(batch.regions.values(), batch.views.windows, strict=True):
        sizes = windows[:, 2:]
        assert len(set(map(tuple, sizes))) == 2
        assert images.shape[:3] == (2, 2, 3)
        assert (np.array(images.shape[3:]) >= sizes.max(0)).all()
        for place, (height, width) in enumerate(sizes):
            image = images[:, place]
            assert (image[..., :height, :width] > 190).all()
            assert (image[..., height:, :] == 0).all()
            assert (image[..., width:] == 0).all()


def test_moving_a_batch_keeps_all_it_says(ten_clips):
    (batch,) = loader_of(ten_clips).batches(0, 1)
    assert samples_of(batch.to(torch.device("cpu"))) == samples_of(batch)
    meta = batch.to(torch.device("meta"))
    assert all(region.is_meta for region in meta.regions.values())
    assert meta.seconds.is_meta
    assert meta.clips == batch.clips


def test_reading_leaves_the_global_random_numbers_alone(ten_clips):
    before = torch.get_rng_state()
    list(loader_of(ten_clips, num_workers=1).batches(0, 1))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_that_cannot_be_shared_evenly_is_refused(ten_clips):
    message = r"data\.batch_size = 4: 2 clips of 2 samples .* 3 processes; give a multiple of 6"
    with pytest.raises(MidwayError, match=message):
        loader_of(ten_clips, draws_per_clip=2, world_size=3)


def broken_clips(root: Path, names: list[str]) -> None:
    """Clips whose frames turn out to be unreadable only when they are read."""
    for name in names:
        for path in write_frames(root / name, [f"{frame}.png" for frame in range(16)]):
            path.write_text("no picture")


def listed(folder: Path) -> list[str]:
    lines = (folder / "skipped.jsonl").read_text().splitlines()
    return [json.loads(line)["clip"] for line in lines]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_clips_that_fail_on_the_way_are_listed_once_and_the_run_goes_on(tmp_path, num_workers):
    root, run = tmp_path / "data", tmp_path / "run"
    broken_clips(root, ["bad"])
    write_frames(root / "good", [f"{frame}.png" for frame in range(16)])
    (root / "text.mp4").write_text("no video")
    loader = loader_of(root, max_bad_share=0.7, folder=run, num_workers=num_workers)
    for batch in loader.batches(0, 3):
        assert set(batch.clips) == {"good/*.png"}
    assert listed(run) == ["text.mp4", "bad/*.png"]
    first = json.loads((run / "skipped.jsonl").read_text().splitlines()[0])
    assert first.keys() == {"clip", "reason"}
    assert first["reason"].startswith(f"{root}/text.mp4: cannot be read")
    list(loader_of(root, max_bad_share=0.7, folder=run).batches(3, 6))
    assert listed(run) == ["text.mp4", "bad/*.png"]


def test_one_process_lists_the_clips_that_all_skip_at_the_start(tmp_path):
    root, run = tmp_path / "data", tmp_path / "run"
    write_frames(root / "good", [f"{frame}.png" for frame in range(16)])
    (root / "text.mp4").write_text("no video")
    for rank in (1, 0):
        loader_of(root, max_bad_share=0.5, folder=run, rank=rank, world_size=2)
    assert listed(run) == ["text.mp4"]


def test_processes_that_fail_on_the_same_clip_list_it_once(tmp_path):
    root, run = tmp_path / "data", tmp_path / "run"
    broken_clips(root, ["bad"])
    write_frames(root / "good", [f"{frame}.png" for frame in range(16)])
    ranks = [
        loader_of(root, max_bad_share=0.5, folder=run, rank=rank, world_size=2).batches(0, 8)
        for rank in range(2)
    ]
    for _ in zip(*ranks, strict=True):
        pass
    assert listed(run) == ["bad/*.png"]


def test_half_a_line_of_a_killed_run_is_no_obstacle(tmp_path):
    root, run = tmp_path / "data", tmp_path / "run"
    write_frames(root / "good", [f"{frame}.png" for frame in range(16)])
    (root / "text.mp4").write_text("no video")
    run.mkdir()
    (run / "skipped.jsonl").write_text('{"clip": "text.m')
    loader_of(root, max_bad_share=0.5, folder=run)
    assert (run / "skipped.jsonl").read_text().count('"text.mp4"') == 1


def test_too_many_bad_files_stop_the_run_at_its_start(tmp_path):
    write_frames(tmp_path / "good", [f"{frame}.png" for frame in range(16)])
    (tmp_path / "text.mp4").write_text("no video")
    message = r"1 of 2 clips \(50\.0%\) .* --data\.max-bad-share 0\.4 .* first: .*text\.mp4: "
    with pytest.raises(MidwayError, match=message):
        loader_of(tmp_path, max_bad_share=0.4)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_too_many_failing_clips_stop_the_run_later_on(tmp_path, num_workers):
    broken_clips(tmp_path, ["bad0", "bad1"])
    write_frames(tmp_path / "good", [f"{frame}.png" for frame in range(16)])
    loader = loader_of(tmp_path, max_bad_share=0.5, num_workers=num_workers)
    with pytest.raises(MidwayError, match=r"2 of 3 clips \(66\.7%\) cannot be used"):
        list(loader.batches(0, 3))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_in_a_worker_arrives_as_its_one_line(tmp_path, num_workers):
    broken_clips(tmp_path, ["bad0", "bad1"])
    loader = loader_of(tmp_path, max_bad_share=1, num_workers=num_workers)
    with pytest.raises(MidwayError, match="2 clips in a row could not be read") as raised:
        list(loader.batches(0, 1))
    assert "\n" not in str(raised.value)


LEAVING = """
import sys
from pathlib import Path
from tests.data.sampling.test_loader import loader_of

if __name__ == "__main__":
    batches = loader_of(Path(sys.argv[1]), num_workers=2).batches(0, 100)
    next(batches)
    raise SystemExit(7)
"""


def test_a_script_that_leaves_amid_its_batches_ends(ten_clips):
    command = [sys.executable, "-c", LEAVING, str(ten_clips)]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (7, b"")


class Trap:
    """A clip that ends or holds up the process that reads it."""

    fps = 10.0
    frame_seconds = np.arange(16) / 10
    location = "nowhere"
    signals = None

    def __init__(self, name: str) -> None:
        self.name = name

    def open(self):
        if self.name == "hangs":
            signal.sigwait([signal.SIGUSR1])
        if self.name == "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        raise BadClipError(self.location, "is a trap", "avoid it")


@pytest.mark.timeout(100)
def test_a_clip_that_crashes_or_hangs_a_worker_is_skipped_like_any_other(tmp_path):
    root, run = tmp_path / "data", tmp_path / "run"
    for number in range(3):
        write_frames(root / f"good{number}", [f"{frame}.png" for frame in range(16)])
    found = find_clips(str(root), fps=10, gap_seconds=(0.5, 1.0))
    trapped = replace(found, clips=(*found.clips, Trap("crashes"), Trap("hangs"), Trap("bad")))

    def loader(**fields: object) -> ClipLoader:
        config = ClipsConfig(fps=10, batch_size=6, max_bad_share=0.5, **fields)  # pyright: ignore
        return ClipLoader(ClipDataset(trapped, config, ViewsConfig().spec(), seed=0), folder=run)

    batches = list(loader(num_workers=2, read_timeout_seconds=2).batches(0, 3))
    assert [len(batch) for batch in batches] == [6, 6, 6]
    assert sorted(listed(run)) == ["bad", "crashes", "hangs"]
    reasons = {s.clip: s.reason for batch in batches for s in batch.skipped}
    assert reasons["hangs"] == "nowhere: takes more than 2 s to read; re-encode it or remove it"
    assert "SIGSEGV" in reasons["crashes"]
