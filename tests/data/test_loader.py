"""Batches by step: the same pairs for any workers, processes and restarts; bad clips counted."""

import gc
import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from midway.data.clips import find_clips
from midway.data.loader import PairBatch, PairLoader
from midway.data.pairs import PairDataset, PairsConfig
from midway.errors import MidwayError
from tests.data.made_videos import even_times, write_frames, write_video


def draw_views(height: int, width: int, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(2, generator=generator)


def stack_views(views) -> torch.Tensor:
    return torch.stack(list(views))


def loader_of(
    root: Path,
    *,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    folder: Path | None = None,
    **fields: object,
) -> PairLoader[torch.Tensor, torch.Tensor]:
    defaults = {"root": str(root), "fps": 10, "batch_size": 4, "num_workers": 0}
    config = PairsConfig(**{**defaults, **fields})  # pyright: ignore[reportArgumentType]
    found = find_clips(str(root), fps=config.fps, gap_seconds=config.gap_seconds)
    dataset = PairDataset(found, config, seed=seed, draw_views=draw_views)
    return PairLoader(
        dataset, stack_views=stack_views, rank=rank, world_size=world_size, folder=folder
    )


@pytest.fixture(scope="module")
def ten_clips(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    for number in range(5):
        write_video(root / f"video{number}.mp4", even_times(16))
        write_frames(root / f"frames{number}", [f"{frame}.png" for frame in range(16)])
    return root


def pairs_of(batch: PairBatch[torch.Tensor]) -> list[tuple]:
    """All that a batch says, pair by pair."""
    return [
        (
            batch.indices[place],
            batch.clips[place],
            batch.source_seconds[place],
            batch.target_seconds[place],
            batch.source[place].numpy().tobytes(),
            batch.target[place].numpy().tobytes(),
            tuple(batch.views[place].tolist()),
        )
        for place in range(len(batch))
    ]


@pytest.fixture(scope="module")
def reference(ten_clips) -> list[list[tuple]]:
    """Steps 0 to 6 of one process that reads by itself."""
    return [pairs_of(batch) for batch in loader_of(ten_clips, draws_per_clip=2).batches(0, 7)]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(ten_clips, reference, num_workers):
    loader = loader_of(ten_clips, draws_per_clip=2, num_workers=num_workers)
    assert [pairs_of(batch) for batch in loader.batches(0, 7)] == reference


def test_processes_share_out_the_same_batch(ten_clips, reference):
    ranks = [
        loader_of(ten_clips, draws_per_clip=2, rank=rank, world_size=2).batches(0, 7)
        for rank in range(2)
    ]
    for whole, *parts in zip(reference, *ranks, strict=True):
        assert [len(part) for part in parts] == [2, 2]
        assert sorted(pair for part in parts for pair in pairs_of(part)) == sorted(whole)


def test_a_later_start_goes_on_with_the_same_batches(ten_clips, reference):
    resumed = loader_of(ten_clips, draws_per_clip=2).batches(3, 7)
    assert [pairs_of(batch) for batch in resumed] == reference[3:]


def test_a_pass_holds_every_item_once_whatever_the_processes(ten_clips):
    for world_size in (1, 2, 4):
        loaders = [
            loader_of(ten_clips, rank=rank, world_size=world_size) for rank in range(world_size)
        ]
        keys = [key for step in range(10) for loader in loaders for key in loader.keys(step)]
        assert sorted(keys) == [(epoch, index) for epoch in range(4) for index in range(10)]


def test_every_pass_and_seed_has_its_own_order(ten_clips):
    orders = set()
    for seed in (0, 1):
        loader = loader_of(ten_clips, seed=seed, batch_size=10)
        orders |= {tuple(index for _, index in loader.keys(step)) for step in range(3)}
    assert len(orders) == 6
    assert tuple(range(10)) not in orders


@pytest.mark.parametrize(("batch_size", "draws", "steps"), [(4, 1, 2), (4, 2, 2), (100, 5, 1)])
def test_an_epoch_is_as_many_pairs_as_there_are_clips(ten_clips, batch_size, draws, steps):
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
    assert batch.source.shape == batch.target.shape == (2, 3, 64, 96)
    sizes = {"high.mp4": (64, 32), "wide.mp4": (32, 96)}
    for image, name in zip(batch.source, batch.clips, strict=True):
        height, width = sizes[name]
        assert (image[:, :height, :width] > 190).all()
        assert (image[:, height:] == 0).all()
        assert (image[:, :, width:] == 0).all()


def test_moving_a_batch_keeps_all_it_says(ten_clips):
    (batch,) = loader_of(ten_clips).batches(0, 1)
    assert pairs_of(batch.to(torch.device("cpu"))) == pairs_of(batch)
    meta = batch.to(torch.device("meta"))
    assert meta.source.is_meta
    assert meta.target.is_meta
    assert meta.clips == batch.clips


def collect_garbage(height: int, width: int, generator: torch.Generator) -> torch.Tensor:
    gc.collect()
    return torch.zeros(2)


@pytest.mark.timeout(30)
def test_a_worker_does_not_wait_for_threads_of_decoders_left_behind(ten_clips):
    gc.disable()
    try:
        with av.open(str(ten_clips / "video0.mp4")) as container:
            ring: list = [next(container.decode(video=0))]
        ring[0].to_ndarray(format="rgb24")  # starts threads, which live as long as the frame
        ring.append(ring)
        del ring
        found = find_clips(str(ten_clips), fps=10, gap_seconds=(0.5, 1.0))
        config = PairsConfig(fps=10, batch_size=2, num_workers=1)
        dataset = PairDataset(found, config, seed=0, draw_views=collect_garbage)
        assert len(list(PairLoader(dataset, stack_views=stack_views).batches(0, 2))) == 2
    finally:
        gc.enable()


@pytest.mark.gpu
def test_page_locked_batches_reach_the_gpu_unchanged(ten_clips):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    for batch in loader_of(ten_clips, num_workers=2).batches(0, 2):
        assert batch.source.is_pinned()
        there = batch.to(torch.device("cuda"))
        assert there.target.is_cuda
        assert torch.equal(there.target.cpu(), batch.target)


def test_reading_leaves_the_global_random_numbers_alone(ten_clips):
    before = torch.get_rng_state()
    list(loader_of(ten_clips, num_workers=1).batches(0, 1))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_that_cannot_be_shared_evenly_is_refused(ten_clips):
    message = r"data\.batch_size = 4: 2 clips of 2 pairs .* 3 processes; give a multiple of 6"
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


def test_one_process_lists_what_all_of_them_found_at_the_start(tmp_path):
    root, run = tmp_path / "data", tmp_path / "run"
    write_frames(root / "good", [f"{frame}.png" for frame in range(16)])
    (root / "text.mp4").write_text("no video")
    for rank in (1, 0):
        loader_of(root, max_bad_share=0.5, folder=run, rank=rank, world_size=2)
    assert listed(run) == ["text.mp4"]


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
    message = r"1 of 2 clips \(50\.0%\) .* data\.max_bad_share = 0\.4 .* first: .*text\.mp4: "
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
