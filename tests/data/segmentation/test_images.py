"""Labelled datasets are found in their real layouts, and errors name the file and the remedy."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from midway.data.flow.files import write_flow
from midway.data.segmentation.classes import IGNORE, SCENE_PARSE
from midway.data.segmentation.find import find_labelled
from midway.data.segmentation.images import SegmentationData, WalkingToursData
from midway.data.segmentation.layouts import DATASETS
from midway.errors import MidwayError
from tests.data.segmentation.labelled_folders import (
    DATASET,
    NUM_CLASSES,
    paths,
    stored,
    write_dummy,
)
from tests.data.test_images import small_png


def data_of(kind, root, **changes):
    if kind == "wt_sem":
        return WalkingToursData(dataset=kind, root=str(root), **({"label_offset": 1} | changes))
    return SegmentationData(dataset=DATASET.get(kind, kind), root=str(root), **changes)


@pytest.fixture
def camvid(tmp_path):
    write_dummy("camvid", tmp_path, train=2, val=1)
    return data_of("camvid", tmp_path)


@pytest.mark.parametrize("kind", NUM_CLASSES)
def test_images_and_classes_come_back_from_every_layout(kind, tmp_path):
    write_dummy(kind, tmp_path)
    for split, count in (("train", 6), ("val", 3)):
        found = find_labelled(data_of(kind, tmp_path), split)
        assert len(found) == count
        assert len(found.class_names) == NUM_CLASSES[kind]
        for index in range(count):
            image, classes = found.read(index)
            assert image.size == (80, 48)
            assert classes.shape == (48, 80)
            with Image.open(found[index].label) as file:
                assert np.array_equal(stored(kind, classes.astype(int)), np.asarray(file))
    assert [item.name for item in found] == sorted(item.name for item in found)


@pytest.mark.parametrize(
    ("kind", "top"),
    [
        *(("ade20k", "ADEChallengeData2016"), ("camvid", "CamVid")),
        *(("voc", "VOC2012"), ("voc", "VOCdevkit/VOC2012")),
    ],
)
def test_the_folder_above_serves_as_well(kind, top, tmp_path):
    write_dummy(kind, tmp_path / top)
    assert len(find_labelled(data_of(kind, tmp_path), "val")) == 3


def test_cityscapes_ids_become_the_train_ids_of_the_official_script(tmp_path):
    write_dummy("cityscapes", tmp_path, train=1)
    found = find_labelled(data_of("cityscapes", tmp_path), "train")
    values = np.zeros((48, 80), np.uint8)
    values[0, :35] = [*range(34), 255]
    Image.fromarray(values).save(found[0].label)
    classes = found.read(0)[1][0, :35].tolist()
    kept = {7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole"}
    kept |= {19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky"}
    kept |= {24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train"}
    kept |= {32: "motorcycle", 33: "bicycle"}
    names = [None if c == IGNORE else found.class_names[c] for c in classes]
    assert names == [kept.get(value) for value in [*range(34), 255]]


def test_train_ids_are_taken_where_both_kinds_of_labels_are(tmp_path):
    write_dummy("cityscapes", tmp_path)
    write_dummy("cityscapes_train_ids", tmp_path)
    found = find_labelled(data_of("cityscapes", tmp_path), "train")
    assert all(item.label.endswith("labelTrainIds.png") for item in found)


def test_the_offset_of_walking_tours_is_an_option_and_checked(tmp_path):
    write_dummy("wt_sem", tmp_path, train=1)
    one = find_labelled(data_of("wt_sem", tmp_path, label_offset=1), "train")
    values = np.zeros((48, 80), np.uint8)
    values[0, :2] = 1, 150
    Image.fromarray(values).save(one[0].label)
    assert one.read(0)[1][0, :3].tolist() == [0, 149, IGNORE]
    zero = find_labelled(data_of("wt_sem", tmp_path, label_offset=0), "train")
    with pytest.raises(MidwayError, match="label value 150 is not in 0 to 149, 255"):
        zero.read(0)
    with pytest.raises(MidwayError, match="label_offset = 2; give 0 or 1"):
        data_of("wt_sem", tmp_path, label_offset=2)


def test_folders_and_suffixes_of_walking_tours_are_options(tmp_path):
    write_dummy("wt_sem", tmp_path)
    (tmp_path / "images").rename(tmp_path / "frames")
    for path in (tmp_path / "labels").rglob("*.png"):
        path.rename(path.with_name(path.name.replace(".png", "_seg.png")))
    data = data_of("wt_sem", tmp_path, images="frames/{split}", label_suffix="_seg.png")
    assert len(find_labelled(data, "train")) == 6


def test_another_layout_is_reported_with_expected_and_found_folders(tmp_path):
    write_dummy("ade20k", tmp_path)
    with pytest.raises(
        MidwayError,
        match=r"not the layout of BDD100K sem_seg; expected images/10k/train/\*.jpg with "
        r"labels/sem_seg/masks/train/\*.png or seg/.*found annotations, images$",
    ):
        find_labelled(data_of("bdd100k", tmp_path), "train")
    with pytest.raises(MidwayError, match="found no such folder"):
        find_labelled(data_of("bdd100k", tmp_path / "nowhere"), "train")
    (tmp_path / "file").touch()
    with pytest.raises(MidwayError, match="found no such folder"):
        find_labelled(data_of("bdd100k", tmp_path / "file"), "train")
    with pytest.raises(MidwayError, match=r"data.root is not set; .* --data.root"):
        find_labelled(data_of("bdd100k", ""), "train")


def test_an_empty_split_is_reported(camvid):
    folder = Path(camvid.root)
    for path in [*(folder / "test").iterdir(), *(folder / "testannot").iterdir()]:
        path.unlink()
    with pytest.raises(MidwayError, match=r"nothing in split 'test' of CamVid.*: 0 images test/"):
        find_labelled(camvid, "val")


def test_images_without_labels_and_labels_without_images_are_named(camvid):
    image, label = paths("camvid", Path(camvid.root), "train", 1)
    kept = label.read_bytes()
    label.unlink()
    with pytest.raises(MidwayError, match=r"1 of 2 images have no label; missing are b0001.png"):
        find_labelled(camvid, "train")
    label.write_bytes(kept)
    image.unlink()
    with pytest.raises(MidwayError, match=r"1 of 2 labels have no image; missing are b0001.png"):
        find_labelled(camvid, "train")


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (Image.new("L", (80, 48), 12), "label value 12 is not in 0 to 11; check that"),
        (Image.new("L", (40, 48), 1), "labels of 40x48 pixels for an image of 80x48"),
        (Image.new("P", (80, 48), 1), "a palette image; save its indices"),
        (Image.fromarray(np.full((48, 80), 300, np.uint16)), "16 bits deep"),
        (Image.new("RGB", (80, 48)), "a colour picture; give the folder of the class ids"),
        (Image.new("1", (80, 48)), "of mode 1; save it as 8-bit grey"),
    ],
)
def test_labels_of_a_wrong_type_are_reported_with_their_file(picture, message, camvid):
    found = find_labelled(camvid, "train")
    picture.save(found[0].label)
    with pytest.raises(MidwayError, match=message) as told:
        found.read(0)
    assert found[0].label in str(told.value)


def test_images_that_viewers_turn_are_refused(camvid):
    found = find_labelled(camvid, "train")
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(found[0].image) as image:
        image.load()
    image.save(found[0].image, exif=exif)
    with pytest.raises(MidwayError, match="has orientation 6 in its EXIF, so image and ids"):
        found.read(0)


def test_grey_labels_of_few_bits_are_read_as_stored(camvid):
    found = find_labelled(camvid, "train")
    ids = np.arange(48 * 80, dtype=np.uint8).reshape(48, 80) % 4
    small_png(Path(found[0].label), ids, 2)
    np.testing.assert_array_equal(found.read(0)[1], ids)


def test_unreadable_images_are_reported(camvid):
    found = find_labelled(camvid, "train")
    image = Path(camvid.root) / "train" / "a0000.png"
    whole = image.read_bytes()
    for content, message in (
        (whole[: len(whole) // 2], "cannot be read as an image"),
        (b"", "cannot"),
    ):
        image.write_bytes(content)
        with pytest.raises(MidwayError, match=message):
            found.read(0)
    Image.fromarray(np.full((48, 80), 300, np.uint16)).save(image)
    with pytest.raises(MidwayError, match="more than 8 bits"):
        found.read(0)
    # Colours of 16 bits, which Pillow clips to 8; the format of KITTI's flow is such a picture.
    write_flow(image, np.ones((48, 80, 2), np.float32))
    with pytest.raises(MidwayError, match="more than 8 bits"):
        found.read(0)
    image.unlink()
    with pytest.raises(MidwayError, match="No such file"):
        found.read(0)


def test_unknown_datasets_and_sizes_are_refused():
    with pytest.raises(MidwayError, match="no 'bdd'; there are bdd100k, cityscapes"):
        SegmentationData(dataset="bdd")
    for wrong, message in (
        ({"batch_size": 0}, "data.batch_size and sides .*: give 1 or more"),
        ({"test_scale": (0, 5)}, "test_scale: give 1 or more"),
        ({"num_workers": -1}, "num_workers: give 0"),
        ({"num_workers": 10**9}, "num_workers: give 0 to 1024"),
        ({"ratio": (2.0, 0.5)}, "ratio: give two numbers"),
        ({"ratio": (0.5, float("inf"))}, "ratio: give two numbers"),
        ({"max_class_share": 0.0}, "max_class_share: give a number above 0"),
        ({"p_flip": 7.0}, "p_flip: give a probability"),
    ):
        with pytest.raises(MidwayError, match=message):
            SegmentationData(dataset="bdd100k", **wrong)


def test_the_options_of_walking_tours_belong_to_it_alone():
    with pytest.raises(MidwayError, match="wt_sem has its own options; choose a protocol"):
        SegmentationData(dataset="wt_sem")
    with pytest.raises(MidwayError, match=r"data\.dataset = camvid"):
        WalkingToursData(dataset="camvid")


def test_there_are_as_many_classes_and_colours_as_the_benchmarks_have():
    assert len(SCENE_PARSE) == len(set(SCENE_PARSE)) == 150
    assert [SCENE_PARSE[i] for i in (0, 2, 6, 12, 20, 149)] == [
        *("wall", "sky", "road", "person", "car", "flag")
    ]
    for classes in [dataset.classes for dataset in DATASETS.values() if dataset.classes]:
        colours = classes.painted()
        assert len(set(colours)) == len(classes.names)
        assert (0, 0, 0) not in colours


def test_real_camvid_files_are_read(shared_data):
    found = find_labelled(data_of("camvid", shared_data / "camvid"), "train")
    assert len(found) == 172
    assert len(find_labelled(data_of("camvid", shared_data / "camvid"), "val")) == 50
    image, classes = found.read(0)
    assert image.size == (480, 360)
    assert set(np.unique(classes)) <= {*range(11), IGNORE}


def test_real_ade20k_files_are_read(shared_data, tmp_path):
    for kind in ("images", "annotations"):
        folder = tmp_path / kind / "training"
        folder.mkdir(parents=True)
        for file in (shared_data / "seg_samples" / "ade20k" / kind).iterdir():
            (folder / file.name).symlink_to(file)
    found = find_labelled(data_of("ade20k", tmp_path), "train")
    assert len(found) == 3
    for index in range(3):
        image, classes = found.read(index)
        assert image.size == classes.shape[::-1]
        assert len(np.unique(classes)) > 2
