"""Own labels are found in common layouts and in described ones; mismatches name the mask."""

import numpy as np
import pytest
from PIL import Image

from midway.data.segmentation.classes import IGNORE
from midway.data.segmentation.find import find_labelled
from midway.data.segmentation.images import SegmentationData
from midway.errors import MidwayError

PALETTE = [(128, 64, 128), (0, 0, 142), (0, 0, 0)]


def save(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def write(root, image, mask, names, *, kind="ids"):
    """Images and masks of three columns: class 0, class 1 and unlabelled."""
    ids = np.array([[0, 1, 255]] * 4, np.uint8).repeat(4, 1)
    for name in names:
        save(root / image.format(name), Image.new("RGB", (12, 4)))
        picture = Image.fromarray(ids)
        if kind == "palette":
            picture.putpalette([*range(256)] * 3)
        elif kind == "grey in colours":
            picture = picture.convert("RGB")
        elif kind == "colours":
            table = np.zeros((256, 3), np.uint8)
            table[[0, 1, 255]] = PALETTE
            picture = Image.fromarray(table[ids])
        save(root / mask.format(name), picture)


def own(root, text="road\ncar\n", suffix=".txt"):
    path = root / f"classes{suffix}"
    path.write_text(text)
    return SegmentationData(dataset="folder", root=str(root), classes=str(path))


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/{split}/{{}}.jpg", "masks/{split}/{{}}.png"),
        ("images/{split}/city/{{}}.png", "labels/{split}/city/{{}}.png"),
        ("{split}/images/{{}}.jpeg", "{split}/masks/{{}}.png"),
        ("{split}/{{}}.png", "{split}annot/{{}}.png"),
    ],
)
def test_common_layouts_are_found(tmp_path, image, mask):
    for split, names in (("train", "ab"), ("val", "c")):
        write(tmp_path, image.format(split=split), mask.format(split=split), names)
    found = find_labelled(own(tmp_path), "train")
    assert [item.name.rpartition("/")[2] for item in found] == ["a", "b"]
    assert found.class_names == ("road", "car")
    assert found.read(0)[1][0, [0, 4, 8]].tolist() == [0, 1, IGNORE]
    assert len(find_labelled(own(tmp_path), "val")) == 1


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("ids", "road\ncar\n"),
        ("palette", "road\ncar\n"),
        ("grey in colours", "road\ncar\n"),
        ("colours", "road,128,64,128\ncar,0,0,142\nignored,0,0,0\n"),
    ],
)
def test_masks_of_every_kind(tmp_path, kind, text):
    write(tmp_path, "images/train/{}.jpg", "masks/train/{}.png", "a", kind=kind)
    found = find_labelled(own(tmp_path, text), "train")
    assert found.read(0)[1][0, [0, 4, 8]].tolist() == [0, 1, IGNORE]


def test_lists_name_the_images_of_a_split(tmp_path):
    write(tmp_path, "rgb/{}.jpg", "ids/{}_id.png", "abcd")
    save(tmp_path / "rgb/unlabelled.jpg", Image.new("RGB", (12, 4)))
    (tmp_path / "train.txt").write_text("a\nc\n\n")
    (tmp_path / "val.txt").write_text("b")
    text = 'classes = ["road", "car"]\nimages = "rgb/*.jpg"\nmasks = "ids/*_id.png"\n'
    data = own(tmp_path, text + 'lists = "{split}.txt"\n', ".toml")
    assert [item.name for item in find_labelled(data, "train")] == ["a", "c"]
    assert [item.name for item in find_labelled(data, "val")] == ["b"]
    (tmp_path / "val.txt").write_text("b\nunlabelled\n")
    with pytest.raises(MidwayError, match="1 of 2 images have no label; missing are unlabelled_id"):
        find_labelled(data, "val")


def test_a_held_out_share_splits_one_folder(tmp_path):
    write(tmp_path, "{}.png", "{}_mask.png", "abcdefg")
    text = 'classes = ["road", "car"]\nimages = "*.png"\nmasks = "*_mask.png"\nhold_out = 3\n'
    data = own(tmp_path, text, ".toml")
    assert [item.name for item in find_labelled(data, "train")] == ["a", "b", "d", "e", "g"]
    assert [item.name for item in find_labelled(data, "val")] == ["c", "f"]
    data = own(tmp_path, text.replace("3", "8"), ".toml")
    with pytest.raises(
        MidwayError, match="hold_out = 8 leaves no image for evaluation; give 2 to 7"
    ):
        find_labelled(data, "val")


def test_a_mismatch_names_mask_value_share_and_remedy(tmp_path):
    write(tmp_path, "images/train/{}.jpg", "masks/train/{}.png", "ab")
    data = own(tmp_path, "road,0\ncar,7\n")
    found = find_labelled(data, "train")
    with pytest.raises(
        MidwayError,
        match=r"masks/train/a.png: label value 1, 33.3 % of its pixels, is not in .*classes.txt "
        r"\(0, 7, 255\); add it there, as a class, or as ignored: ignored,VALUE in a list, ",
    ):
        found.require_labels()
    write(tmp_path, "images/train/{}.jpg", "masks/train/{}.png", "ab", kind="colours")
    found = find_labelled(own(tmp_path, "road,128,64,128\ncar,9,9,9\n"), "train")
    with pytest.raises(MidwayError, match=r"colours \(0, 0, 0\), \(0, 0, 142\), 66.7 % .* are not"):
        found.require_labels()
    found = find_labelled(own(tmp_path), "train")
    with pytest.raises(MidwayError, match=r"a.png: is a colour picture; list the colours of the"):
        found.require_labels()


def test_masks_in_the_middle_of_a_split_are_compared_before_a_training(tmp_path):
    write(tmp_path, "images/train/{}.jpg", "masks/train/{}.png", "abc")
    save(tmp_path / "masks/train/b.png", Image.new("L", (12, 4), 9))
    with pytest.raises(MidwayError, match=r"b.png: label value 9, 100 % of its pixels"):
        find_labelled(own(tmp_path), "train").require_labels()


def test_what_is_missing_is_said(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(
        MidwayError,
        match=r"not the layout of own labels; expected images/train/\* with masks/train/\*.png or "
        r".*or another one in a .toml class list; found classes.txt, pictures$",
    ):
        find_labelled(own(tmp_path), "train")
    with pytest.raises(MidwayError, match=r"data.classes is not set; .* --data.classes FILE"):
        find_labelled(SegmentationData(dataset="folder", root=str(tmp_path)), "train")
    with pytest.raises(MidwayError, match=r"data.classes: camvid has its own classes"):
        SegmentationData(dataset="camvid", classes="classes.txt")
    write(tmp_path, "images/train/{}.jpg", "masks/train/{}.png", "a")
    save(tmp_path / "images/train/a.png", Image.new("RGB", (12, 4)))
    with pytest.raises(MidwayError, match=r"is a second file of .*a.jpg; remove one"):
        find_labelled(own(tmp_path), "train")
