"""Flow datasets: the pairs of every layout, their splits, and errors."""

import shutil
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from midway.data.flow.checks import is_known
from midway.data.flow.datasets import FLOW_SETS, list_pairs
from midway.data.flow.files import write_flo
from midway.data.flow.pairs import load_pair, read_mask
from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_flow_dataset
from midway.errors import MidwayError
from midway.nn.images import warp
from tests.data.flow import fake_h5py
from tests.data.flow import made_flow_sets as made


def write_synthetic(root: Path) -> None:
    config = WorldConfig(height=24, width=32, num_frames=3, fps=4)
    write_flow_dataset(root, config, seeds=range(2))


WRITERS = {
    "sintel": made.write_sintel,
    "things": made.write_things,
    "chairs": made.write_chairs,
    "tartanair": lambda root: made.write_tartanair(root, doubled=False),
    "kitti": made.write_kitti,
    "hd1k": made.write_hd1k,
    "vkitti2": made.write_vkitti2,
    "folder": made.write_folder,
    "spring": made.write_spring,
    "middlebury": lambda root: made.write_middlebury(root, official=False),
    "synthetic": write_synthetic,
}


@pytest.fixture(autouse=True)
def h5py(monkeypatch):
    if find_spec("h5py") is None:
        monkeypatch.setitem(sys.modules, "h5py", fake_h5py)


def pairs_of(dataset: str, root: Path, split: str = "all"):
    WRITERS[dataset](root)
    return list_pairs(dataset, root, split)


def image_difference(example, flow):
    """Mean absolute difference between the source and the target, warped by `flow`."""
    target = torch.from_numpy(example.target.transpose(2, 0, 1)).float()[None]
    warped, inside = warp(target, torch.from_numpy(flow.transpose(2, 0, 1))[None])
    known = inside[0].numpy() & is_known(example.flow)
    if example.occluded is not None:
        known &= ~example.occluded
    difference = np.abs(warped[0].numpy().transpose(1, 2, 0) - example.source)
    return float(difference[known].mean())


def test_every_dataset_has_a_dummy():
    assert WRITERS.keys() == FLOW_SETS.keys()


@pytest.mark.parametrize("dataset", FLOW_SETS)
def test_the_flow_of_every_pair_of_every_layout_leads_to_its_target(tmp_path: Path, dataset):
    for split in FLOW_SETS[dataset].splits:
        if split == "test1024":
            continue
        for pair in pairs_of(dataset, tmp_path, split):
            example = load_pair(pair)
            assert example.flow.shape == (*made.SIZE, 2)
            still = image_difference(
                example, 0 * np.where(is_known(example.flow)[..., None], example.flow, 0)
            )
            assert image_difference(example, example.flow) < 0.6 * still


def test_sintel_is_divided_by_scenes_and_renderings(tmp_path: Path):
    assert len(pairs_of("sintel", tmp_path)) == 12
    for split, scenes in (("subtrain", {"alley_1"}), ("subval", {"temple_2", "temple_3"})):
        pairs = list_pairs("sintel", tmp_path, f"{split}-final")
        assert {pair.sequence for pair in pairs} == scenes
        assert {pair.rendering for pair in pairs} == {"final"}
        assert len(pairs) == 2 * len(scenes)


def test_things_has_both_directions_without_the_files_that_have_no_partner(tmp_path: Path):
    pairs = pairs_of("things", tmp_path, "train-clean")
    numbers = [tuple(Path(p).stem for p in (x.source, x.target, x.flow)) for x in pairs]
    future, past = "OpticalFlowIntoFuture_{}_L", "OpticalFlowIntoPast_{}_L"
    assert numbers == [
        ("0006", "0007", future.format("0006")),
        ("0007", "0006", past.format("0007")),
        ("0007", "0008", future.format("0007")),
        ("0008", "0007", past.format("0008")),
    ]
    assert len(list_pairs("things", tmp_path, "train")) == 8
    assert {pair.sequence for pair in list_pairs("things", tmp_path, "test")} == {"TEST/B/0001"}


def test_the_1024_of_things_are_every_seventh_of_all_but_the_last_698(tmp_path: Path):
    for sequence in range(437):
        for direction in ("Future", "Past"):
            folder = tmp_path / f"optical_flow/TEST/A/{sequence:04d}/into_{direction.lower()}/left"
            folder.mkdir(parents=True)
            for frame in range(6, 16):
                (folder / f"OpticalFlowInto{direction}_{frame:04d}_L.pfm").touch()
    (tmp_path / "frames_cleanpass").mkdir()
    full = list_pairs("things", tmp_path, "test-clean")
    assert len(full) == 7866
    # By folder: all pairs of a sequence into the future come before those into the past.
    by_folder = sorted(full, key=lambda pair: (str(Path(pair.flow).parent), pair.source))
    found = list_pairs("things", tmp_path, "test1024-clean")
    assert found == by_folder[:-698:7]
    assert len(found) == 1024
    assert len({pair.flow for pair in found} & {pair.flow for pair in full[:-698:7]}) == 228
    first = [Path(pair.flow).name for pair in found[:3]]
    assert first == [
        "OpticalFlowIntoFuture_0006_L.pfm",
        "OpticalFlowIntoFuture_0013_L.pfm",
        "OpticalFlowIntoPast_0012_L.pfm",
    ]
    shutil.rmtree(tmp_path / "optical_flow/TEST/A/0007")
    with pytest.raises(MidwayError, match=r"7848 test pairs below .* is defined on 7866"):
        list_pairs("things", tmp_path, "test1024-clean")


@pytest.mark.parametrize("passes", ["frames_{}pass", "frames_{}pass_webp"])
def test_things_may_be_webp(tmp_path: Path, passes):
    made.write_things(tmp_path / "png")
    made.write_things(tmp_path / "webp", passes=passes, suffix=".webp")
    png, webp = (list_pairs("things", tmp_path / kind, "train") for kind in ("png", "webp"))
    assert len(png) == len(webp) == 8
    for one, other in zip(png, webp, strict=True):
        assert other.source.endswith(".webp")
        one, other = load_pair(one), load_pair(other)
        np.testing.assert_array_equal(one.source, other.source)
        np.testing.assert_array_equal(one.target, other.target)


def test_virtual_kitti_has_both_directions_of_both_cameras(tmp_path: Path):
    pairs = pairs_of("vkitti2", tmp_path)
    assert len(pairs) == 2 * 2 * 2 * 2
    assert {pair.sequence for pair in pairs} == {"Scene01/clone", "Scene20/fog"}
    frames = [[Path(p).stem for p in (x.source, x.target, x.flow)] for x in pairs[:3]]
    assert frames == [
        ["rgb_00000", "rgb_00001", "flow_00000"],
        ["rgb_00001", "rgb_00002", "flow_00001"],
        ["rgb_00000", "rgb_00001", "flow_00000"],
    ]
    backward = next(pair for pair in pairs if "backward" in pair.flow)
    assert [Path(p).stem for p in (backward.source, backward.target)] == ["rgb_00001", "rgb_00000"]
    flow = load_pair(pairs[0]).flow
    assert not is_known(flow)[0, 0]
    # 16 bits over twice the width: steps of a thousandth of a pixel here.
    np.testing.assert_allclose(flow[1:], made.constant_flow()[1:], atol=1e-3)


def test_the_last_flow_of_a_sequence_of_hd1k_has_no_target(tmp_path: Path):
    pairs = pairs_of("hd1k", tmp_path)
    assert [(p.sequence, Path(p.source).stem[-2:], Path(p.target).stem[-2:]) for p in pairs] == [
        (sequence, *numbers)
        for sequence in ("000000", "000001")
        for numbers in (("09", "10"), ("10", "11"))
    ]


def test_own_pairs_are_named_numbered_or_listed(tmp_path: Path):
    pairs = pairs_of("folder", tmp_path, "train")
    assert [pair.sequence for pair in pairs] == ["beside", "flow/walk", "named"]
    assert len(list_pairs("folder", tmp_path, "val")) == 3
    # Of a list, paths with commas or tabs between them may have spaces.
    assert len(list_pairs("folder", tmp_path)) == 2
    made.save(tmp_path / "my frames/1.png", made.scene(0))
    line = "my frames/1.png,train/beside/frame_001.png,train/beside/frame_000.flo"
    (tmp_path / "train.txt").write_text(line)
    (pair,) = list_pairs("folder", tmp_path, "train")
    np.testing.assert_array_equal(load_pair(pair).source, made.scene(0))


def test_own_pairs_that_lack_a_frame_are_named(tmp_path: Path):
    made.write_folder(tmp_path)
    (tmp_path / "pairs.txt").write_text("a.png b.png\n")
    with pytest.raises(MidwayError, match=r"pairs.txt: line 1 has 2 paths; give source, target"):
        list_pairs("folder", tmp_path)
    (tmp_path / "train/named/a_img2.webp").unlink()
    with pytest.raises(
        MidwayError, match=r"a_flow.flo: its two frames are missing; name them a_img1.png"
    ):
        list_pairs("folder", tmp_path, "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MidwayError, match=r"no pair of split 'val' .*expected NAME_img1.png"):
        list_pairs("folder", tmp_path / "empty", "val")


def test_one_rendering_does_not_pass_for_both(tmp_path: Path):
    made.write_sintel(tmp_path)
    shutil.rmtree(tmp_path / "training/final")
    with pytest.raises(MidwayError, match=r"no final pair of split 'subval' .* split 'subval-cle"):
        list_pairs("sintel", tmp_path, "subval")
    assert len(list_pairs("sintel", tmp_path, "subval-clean")) == 4


def test_files_that_a_system_leaves_beside_the_data_are_no_pairs(tmp_path: Path):
    for dataset, split in (("things", "train"), ("tartanair", "all"), ("kitti", "all")):
        before = pairs_of(dataset, tmp_path / dataset, split)
        for pair in before:
            flow = Path(pair.flow)
            flow.with_name(f"._{flow.name}").touch()
        assert list_pairs(dataset, tmp_path / dataset, split) == before


def test_chairs_is_divided_by_its_list(tmp_path: Path):
    assert len(pairs_of("chairs", tmp_path)) == 3
    assert [Path(p.flow).name for p in list_pairs("chairs", tmp_path, "val")] == ["00002_flow.flo"]
    assert len(list_pairs("chairs", tmp_path, "train")) == 2
    (tmp_path / "chairs_split.txt").write_text("1\n2\n")
    with pytest.raises(MidwayError, match="2 lines for 3 pairs"):
        list_pairs("chairs", tmp_path, "val")
    (tmp_path / "chairs_split.txt").unlink()
    (tmp_path / "empty").mkdir()
    with pytest.raises(MidwayError, match=r"expected .*00001_flow.flo, found nothing"):
        list_pairs("chairs", tmp_path / "empty", "val")
    with pytest.raises(MidwayError, match=r"no chairs_split.txt or"):
        list_pairs("chairs", tmp_path, "val")


def test_kitti_and_spring_hold_out_the_pairs_of_the_protocol(tmp_path: Path):
    made.write_kitti(tmp_path / "kitti")
    subval = list_pairs("kitti", tmp_path / "kitti", "subval")
    assert [pair.sequence for pair in subval] == [f"{n:06d}" for n in range(2, 12)]
    assert len(list_pairs("kitti", tmp_path / "kitti", "subtrain")) == 2
    made.write_spring(tmp_path / "spring")
    assert {p.sequence for p in list_pairs("spring", tmp_path / "spring", "subval")} == {"0041"}
    assert len(list_pairs("spring", tmp_path / "spring")) == 16


def test_other_ways_to_unpack_give_the_same_pairs(tmp_path: Path):
    for doubled in (False, True):
        made.write_tartanair(tmp_path / f"tartanair{doubled}", doubled=doubled)
        made.write_middlebury(tmp_path / f"middlebury{doubled}", official=doubled)
    for dataset in ("tartanair", "middlebury"):
        plain, other = (list_pairs(dataset, tmp_path / f"{dataset}{way}") for way in (False, True))
        assert [p.sequence for p in plain] == [p.sequence for p in other]
        assert len(plain) > 1


def test_wrong_names_and_folders_are_reported(tmp_path: Path):
    for dataset, split, message in (
        ("sintle", "all", "there are sintel, things"),
        (
            "sintel",
            "val",
            "it has all, subtrain, subval, each also with -clean, each also with -final",
        ),
        ("chairs", "train-clean", "no split 'train-clean'"),
        ("kitti", "all", "found oops.txt"),
    ):
        (tmp_path / "oops.txt").touch()
        with pytest.raises(MidwayError, match=message.replace("(", r"\(")):
            list_pairs(dataset, tmp_path, split)
    with pytest.raises(MidwayError, match="check the root"):
        list_pairs("kitti", tmp_path / "nothing")


def test_files_of_different_sizes_are_no_pair(tmp_path: Path):
    (pair, *_) = pairs_of("middlebury", tmp_path)
    shutil.copy(pair.source, tmp_path / "whole.png")
    Image.fromarray(made.scene(0)[:-1]).save(pair.source)
    with pytest.raises(MidwayError, match=f"{pair.target} has 24x32 pixels, .* 23x32"):
        load_pair(pair)
    shutil.copy(tmp_path / "whole.png", pair.source)
    (tmp_path / "mask.png").write_text("no mask")
    with pytest.raises(MidwayError, match=r"mask.png: cannot be read as an image"):
        load_pair(replace(pair, occlusions=str(tmp_path / "mask.png")))
    write_flo(pair.flow, made.constant_flow(size=(24, 30)))
    with pytest.raises(MidwayError, match=f"{pair.flow} has 24x30 pixels"):
        load_pair(pair)


@pytest.mark.parametrize(
    ("dataset", "folder", "count"),
    [
        ("sintel", "sintel", 8),
        ("middlebury", "middlebury", 6),
        ("chairs", "flyingchairs", 6),
        ("kitti", "kitti", 1),
    ],
)
def test_warping_the_target_by_the_true_flow_lowers_the_difference_on_every_real_pair(
    shared_data: Path, dataset, folder, count
):
    pairs = list_pairs(dataset, shared_data / "flow" / folder)
    assert len(pairs) == count
    for pair in pairs:
        example = load_pair(pair)
        flow = np.where(is_known(example.flow)[..., None], example.flow, 0)
        right, still = image_difference(example, flow), image_difference(example, 0 * flow)
        assert right < 0.8 * still, pair
        # Order, sign and scale: no other reading of the numbers explains the frames as well.
        for wrong in (-flow, flow[..., ::-1].copy(), flow / 2):
            assert right < image_difference(example, wrong), pair


def test_sintels_masks_say_where_the_true_flow_does_not_explain_the_target(shared_data: Path):
    pairs = [p for p in list_pairs("sintel", shared_data / "flow/sintel") if p.occlusions]
    assert len(pairs) == 6
    for pair in pairs:
        example = load_pair(pair)
        invalid = read_mask(pair.occlusions.replace("occlusions", "invalid"))
        assert invalid.shape == example.source.shape[:2]
        assert 0 < invalid.mean() < 0.002
        assert example.occluded is not None
        hidden = replace(example, occluded=~example.occluded)
        assert 0.02 < example.occluded.mean() < 0.4
        assert image_difference(hidden, example.flow) > 2 * image_difference(example, example.flow)
