"""Batches of long clips with signals: the same through workers, whole when moved and pinned."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from midway.data.clips.find import find_clips
from midway.data.sampling.loader import ClipLoader
from midway.data.sampling.samples import ClipDataset, ClipsConfig
from midway.data.views.boxes import Box
from midway.data.views.spec import ClipSpec, Region, View
from tests.data.sampling.test_loader import samples_of
from tests.data.video.made_videos import even_times, write_frames, write_video

LONG: dict[str, Any] = {"gap_seconds": (0.1, 0.2), "batch_size": 10, "draws_per_clip": 1}


def long_clips(root: Path, *, num_workers: int, **fields: object) -> ClipLoader:
    """Samples of eight frames, so that a task for a worker holds two of them."""
    config = ClipsConfig(root=str(root), fps=10, num_workers=num_workers, **{**LONG, **fields})
    spec = ClipSpec(
        num_frames=8,
        regions={"frame": Region(), "part": Region(box=Box(area=(0.2, 0.6)))},
        views={"crop": View(size=(16, 16), region="part", box=Box(area=(0.5, 1.0)), p_flip=0.5)},
        signals={"action": (2,)},
    )
    found = find_clips(str(root), fps=10, gap_seconds=config.gap_seconds, num_frames=8)
    return ClipLoader(ClipDataset(found, config, spec, seed=0))


@pytest.fixture(scope="module")
def ten_clips(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    rows = {"seconds": np.arange(16) / 10, "action": np.arange(32.0).reshape(16, 2)}
    for number in range(5):
        write_video(root / f"video{number}.mp4", even_times(16))
        write_frames(root / f"frames{number}", [f"{frame}.png" for frame in range(16)])
        np.savez(root / f"video{number}.signals.npz", **rows)
        np.savez(root / f"frames{number}" / "signals.npz", **rows)
    return root


@pytest.mark.parametrize("fields", [{}, {"draws_per_clip": 5}, {"starts": "every_frame"}])
def test_long_clips_go_through_workers_in_smaller_tasks_unchanged(ten_clips, fields):
    alone, shared = (
        [samples_of(batch) for batch in loader.batches(0, 4)]
        for loader in (long_clips(ten_clips, num_workers=number, **fields) for number in (0, 2))
    )
    assert alone == shared
    assert [len(batch) for batch in alone] == [10] * 4


def test_a_batch_of_long_clips_has_its_documented_shapes(ten_clips):
    loader = long_clips(ten_clips, num_workers=0)
    (batch,) = loader.batches(0, 1)
    assert len(batch) == 10
    assert batch.seconds.shape == (8, 10)
    assert batch.seconds.dtype == torch.float32
    gaps = batch.seconds.diff(dim=0)
    assert ((gaps > 0.099) & (gaps < 0.201)).all()
    assert batch.regions["frame"].shape == (8, 10, 3, 48, 64)
    assert batch.signals["action"].shape == (8, 10, 2)
    rows = (10 * batch.seconds).round()
    assert torch.equal(batch.signals["action"], torch.stack((2 * rows, 2 * rows + 1), dim=2))
    clips = batch.render(loader.dataset.spec)
    assert len(clips) == 10
    assert clips.views["crop"].shape == (8, 1, 10, 3, 16, 16)
    assert clips.seconds is batch.seconds
    assert clips.signals is batch.signals


def test_moving_a_batch_moves_its_signals_too(ten_clips):
    (batch,) = long_clips(ten_clips, num_workers=0).batches(0, 1)
    assert samples_of(batch.to(torch.device("cpu"))) == samples_of(batch)
    meta = batch.to(torch.device("meta"))
    moved = [*meta.regions.values(), *meta.signals.values(), meta.seconds]
    assert len(moved) == 4
    assert all(tensor.is_meta for tensor in moved)
    assert not batch.seconds.is_meta
    assert (meta.clips, meta.indices, meta.views) == (batch.clips, batch.indices, batch.views)


def test_all_tensors_of_a_batch_are_pinned(ten_clips, monkeypatch):
    """Page-locking is counted, for it needs a GPU."""
    pinned = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor)
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    (batch,) = long_clips(ten_clips, num_workers=0).batches(0, 1)
    there = batch.pin_memory()
    tensors = [*batch.regions.values(), batch.seconds, *batch.signals.values()]
    assert len(pinned) == len(tensors) == 4
    assert all(one is other for one, other in zip(pinned, tensors, strict=True))
    assert samples_of(there) == samples_of(batch)


def test_a_large_batch_of_long_clips_is_one_of_many_tasks(ten_clips):
    """Also where neither items nor tasks divide the batch evenly."""
    fields = {"draws_per_clip": 3, "batch_size": 21}
    batches = [list(long_clips(ten_clips, num_workers=n, **fields).batches(0, 3)) for n in (0, 2)]
    for alone, shared in zip(*batches, strict=True):
        assert len(alone) == 21
        assert samples_of(alone) == samples_of(shared)


@pytest.mark.gpu
def test_page_locked_batches_reach_the_gpu_unchanged(ten_clips):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    for batch in long_clips(ten_clips, num_workers=2).batches(0, 2):
        there = batch.to(torch.device("cuda"))
        pairs = [(batch.seconds, there.seconds)]
        pairs += [(region, there.regions[name]) for name, region in batch.regions.items()]
        pairs += [(values, there.signals[name]) for name, values in batch.signals.items()]
        for here, moved in pairs:
            assert here.is_pinned()
            assert moved.is_cuda
            assert torch.equal(moved.cpu(), here)
