"""Flow dataloader: the pairs of a mixture, the same batches after a restart, one-line errors."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from midway.data.flow.loader import (
    ABLATION_MIXTURE,
    PAPER_MIXTURE,
    FlowDataConfig,
    FlowLoader,
    FlowPart,
)
from midway.errors import MidwayError
from tests.data.flow import made_flow_sets as made

PARTS = (
    FlowPart(dataset="chairs", split="all", folder="chairs", repeats=2),
    FlowPart(dataset="kitti", split="all", folder="kitti"),
)


@pytest.fixture
def config(tmp_path: Path):
    made.write_chairs(tmp_path / "chairs")
    made.write_kitti(tmp_path / "kitti", count=4)
    return FlowDataConfig(root=tmp_path, parts=PARTS, crop=(16, 16), batch_size=2, num_workers=0)


def test_the_papers_mixture_adds_up_to_its_published_size():
    pairs = {"sintel": 2 * 943, "things": 2 * 40_302, "chairs": 22_232, "tartanair": 306_268}
    assert sum(pairs[part.dataset] * part.repeats for part in PAPER_MIXTURE) == 793_052
    assert {part.dataset: part.repeats for part in ABLATION_MIXTURE} == {"things": 4, "chairs": 4}


def test_every_pair_comes_as_often_as_its_part_repeats(config):
    loader = FlowLoader(config, seed=0)
    assert loader.steps_per_epoch == 5
    seen = Counter(index for step in range(5) for _, index in loader.keys(step))
    assert seen == Counter(range(10))  # 3 chairs twice, 4 of KITTI
    flows = torch.cat([batch.flow for batch in loader.batches(0, 5)])
    sparse = (~flows.isfinite()).flatten(1).any(1).sum()
    assert sparse == pytest.approx(4, abs=1)  # a crop may miss the unknown half


def test_an_epoch_ends_at_its_limit_and_the_next_is_shuffled_anew(config):
    loader = FlowLoader(replace(config, pairs_per_epoch=4), seed=0)
    assert loader.steps_per_epoch == 2
    epochs = [[k for step in (2 * e, 2 * e + 1) for k in loader.keys(step)] for e in range(3)]
    assert [{epoch for epoch, _ in keys} for keys in epochs] == [{0}, {1}, {2}]
    assert len({tuple(index for _, index in keys) for keys in epochs}) == 3


def test_a_batch_is_the_same_with_workers_and_from_any_start(config):
    plain = list(FlowLoader(config, seed=5).batches(0, 4))
    resumed = list(FlowLoader(replace(config, num_workers=1), seed=5).batches(2, 4))
    for one, two in zip(plain[2:], resumed, strict=True):
        assert torch.equal(one.source, two.source)
        assert torch.equal(one.flow, two.flow)
    other = next(FlowLoader(config, seed=6).batches(0, 1))
    assert not torch.equal(other.source, plain[0].source)


def test_processes_share_a_step_without_overlap(config):
    shares = [FlowLoader(config, seed=1, rank=rank, world_size=2).keys(3) for rank in range(2)]
    assert sorted(shares[0] + shares[1]) == sorted(FlowLoader(config, seed=1).keys(3))
    with pytest.raises(MidwayError, match="cannot be shared by 3 processes"):
        FlowLoader(config, seed=1, world_size=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": ()}, "no dataset"),
        ({"parts": (replace(PARTS[0], repeats=0),)}, "repeats = 0; give 1 or more"),
        ({"batch_size": 0}, "batch_size = 0; give 1 or more"),
        ({"pairs_per_epoch": 0}, "pairs_per_epoch = 0; give 1 or more"),
        ({"crop": (0, 16)}, "crop = 0; give 1 or more"),
        ({"num_workers": -1}, "num_workers = -1; give 0 or more"),
        ({"num_workers": 10**9}, "num_workers 1000000000 is too large; give 1024 or less"),
    ],
)
def test_senseless_settings_are_refused(config, changes, message):
    with pytest.raises(MidwayError, match=message):
        replace(config, **changes)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_missing_or_damaged_file_stops_with_its_name(config, num_workers):
    config = replace(config, num_workers=num_workers)
    for number in range(4):
        path = config.root / f"kitti/training/image_2/{number:06d}_11.png"
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(MidwayError, match=r"00000\d_11.png"):
        list(FlowLoader(config, seed=0).batches(0, 5))
    for path in config.root.glob("kitti/training/image_2/*_11.png"):
        path.unlink()
    with pytest.raises(MidwayError, match=r"00000\d_11.png"):
        list(FlowLoader(config, seed=0).batches(0, 5))


def test_without_augmentation_the_middle_comes_as_it_is(config):
    loader = FlowLoader(replace(config, augment=False), seed=0)
    for batch in loader.batches(0, 2):
        assert len(batch) == 2
        for source in batch.source:
            np.testing.assert_array_equal(source.permute(1, 2, 0), made.scene(0)[4:20, 8:24])
