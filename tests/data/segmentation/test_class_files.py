"""Class lists in every format give the same classes; contradictions are errors with the file."""

import json

import numpy as np
import pytest

from midway.data.segmentation.class_files import read_dataset
from midway.data.segmentation.class_list import class_list
from midway.data.segmentation.classes import IGNORE
from midway.errors import MidwayError
from tests.data.segmentation.labelled_folders import MAPILLARY

COLOURS = [(128, 64, 128), (0, 0, 142)]


def classes_in(tmp_path, text, suffix=".txt"):
    path = tmp_path / f"classes{suffix}"
    path.write_text(text)
    return read_dataset(str(path)).classes


@pytest.mark.parametrize(
    ("text", "suffix"),
    [
        ("road\ncar\n", ".txt"),
        ("# a comment\nroad\n\ncar\n", ".txt"),
        ("\ufeffroad,0\r\ncar,1\r\n", ".csv"),
        ("name,id\nroad,0\ncar,1", ".csv"),
        ('classes = ["road", "car"]', ".toml"),
        ("[ids]\nroad = 0\ncar = [1]", ".toml"),
    ],
)
def test_ids_in_every_format(tmp_path, text, suffix):
    classes = classes_in(tmp_path, text, suffix)
    assert classes.names == ("road", "car")
    assert classes.values == ((0, 0), (1, 1), (255, IGNORE))
    assert not classes.by_colour
    mask = np.array([[0, 1, 255]], np.uint8)
    assert classes.classes_of(mask, "a.png").tolist() == [[0, 1, IGNORE]]


@pytest.mark.parametrize(
    ("text", "suffix"),
    [
        ("name,r,g,b\nroad,128,64,128\ncar,0,0,142\n", ".csv"),
        ("# label:color_rgb:parts:actions\nroad:128,64,128::\ncar:0,0,142::\n", ".txt"),
        ("[colours]\nroad = [128, 64, 128]\ncar = [[0, 0, 142]]\n", ".toml"),
    ],
)
def test_colours_in_every_format(tmp_path, text, suffix):
    classes = classes_in(tmp_path, text, suffix)
    assert classes.names == ("road", "car")
    assert classes.by_colour
    assert classes.painted() == COLOURS
    assert classes.classes_of(np.array([COLOURS[::-1]], np.uint8), "a.png").tolist() == [[1, 0]]


def test_a_table_may_merge_ids_ignore_some_and_paint_all(tmp_path):
    text = "ignored = [7]\n[ids]\nground = [3, 4, 5]\ncar = 9\n"
    text += "[colours]\ncar = [1, 2, 3]\nground = [4, 5, 6]\n"
    classes = classes_in(tmp_path, text, ".toml")
    mask = np.array([[3, 4, 5, 9, 7, 255]], np.uint8)
    assert classes.classes_of(mask, "a.png").tolist() == [[0, 0, 0, 1, IGNORE, IGNORE]]
    assert classes.painted() == [(4, 5, 6), (1, 2, 3)]
    assert classes.stored().tolist() == [3, 9]


def test_ignored_values_of_lines_and_the_offset_of_a_table(tmp_path):
    classes = classes_in(tmp_path, "road\nignored,11\ncar\n")
    assert dict(classes.values) == {0: 0, 1: 1, 11: IGNORE, 255: IGNORE}
    classes = classes_in(tmp_path, 'classes = ["road", "car"]\noffset = 1\nignored = [0]', ".toml")
    assert dict(classes.values) == {0: IGNORE, 1: 0, 2: 1, 255: IGNORE}
    classes = classes_in(tmp_path, "road,1,2,3\ncar,4,5,6\nignored,0,0,0\n")
    assert dict(classes.values) == {0: IGNORE, 0x010203: 0, 0x040506: 1}


def test_255_may_be_a_class(tmp_path):
    classes = classes_in(tmp_path, "background,0\nobject,255\n")
    assert classes.classes_of(np.array([[0, 255]], np.uint8), "a.png").tolist() == [[0, 1]]


def test_the_configuration_of_mapillary_is_a_class_list(tmp_path):
    classes = classes_in(tmp_path, json.dumps({"labels": MAPILLARY}), ".json")
    assert classes.names == ("Bird", "Curb", "Road", "Car")
    assert dict(classes.values)[4] == IGNORE
    assert classes.painted()[3] == (0, 0, 142)
    # Labels that read alike keep their own names, so that they stay two classes.
    alike = [each | {"readable": "same"} for each in MAPILLARY]
    classes = classes_in(tmp_path, json.dumps({"labels": alike}), ".json")
    assert classes.names[0] == "object--Bird"


def test_the_folders_of_a_table(tmp_path):
    path = tmp_path / "classes.toml"
    path.write_text(
        'classes = ["road", "car"]\nimages = "rgb/*.jpg"\nmasks = "ids/*_id.png"\n'
        'splits = ["a", "b"]\nlists = "{split}.txt"\n'
    )
    dataset = read_dataset(str(path))
    assert dataset.splits == ("a", "b")
    (layout,) = dataset.layouts
    assert layout.files("a") == (("rgb/", ".jpg"), ("ids/", "_id.png"))
    assert layout.describe("a") == "rgb/*.jpg with ids/*_id.png and a.txt"


@pytest.mark.parametrize(
    ("text", "suffix", "message"),
    [
        (json.dumps({"labels": [e | {"color": [1, 2]} for e in MAPILLARY]}), ".json", "three numb"),
        (json.dumps({"labels": [e | {"color": []} for e in MAPILLARY]}), ".json", "three numbers"),
        (
            json.dumps({"labels": [e | {"color": ["1"]} for e in MAPILLARY]}),
            ".json",
            "is not a conf",
        ),
        (
            json.dumps({"labels": [e | {"name": 1, "readable": 1} for e in MAPILLARY]}),
            ".json",
            "is ",
        ),
        ("", ".txt", "no list of classes; give lines of one kind"),
        (
            "road\ncar,1\n",
            ".txt",
            "'car,1' is of another kind than the first line; give lines of one",
        ),
        ("road\n", ".txt", "1 named classes; give 2 to 255"),
        ("road\nroad\n", ".txt", "two classes have one name"),
        ("road,0\ncar,0\n", ".txt", "0 stands for 'car' and for another class"),
        ("road,0\ncar,256\n", ".txt", "'car' has 256; give an id, one number from 0 to 255"),
        ("road,-1\ncar,1\nsky,2\n", ".txt", "'road' has no whole numbers"),
        ("road,0\ncar,x\n", ".txt", "'car' has no whole numbers"),
        ("road,1,2,3\ncar,1,2,3\n", ".txt", r"\(1, 2, 3\) stands for 'car'"),
        ("classes = 3", ".toml", "classes = 3: input should be"),
        ("clases = []", ".toml", "no field 'clases'; did you mean 'classes'"),
        ("classes =", ".toml", "is not TOML"),
        ('classes = ["a", "b"]\n[ids]\na = 0\nb = 1', ".toml", "has both classes and ids"),
        ('classes = ["a", "a"]', ".toml", "two classes have one name"),
        ("offset = 1\n[ids]\na = 0\nb = 1", ".toml", "offset belongs to classes"),
        ("[ids]\na = 0\nb = 1\n[colours]\na = [0, 0, 0]", ".toml", "class 'b' has no colour"),
        ('classes = ["a", "b"]\nimages = "x"\nmasks = "y/*"', ".toml", "path 'x': must end in"),
        ('classes = ["a", "b"]\nhold_out = 5', ".toml", "lists and hold_out need images and"),
        *(
            (
                f'classes = ["a", "b"]\nimages = "*.png"\nmasks = "*_m.png"\nhold_out = {n}',
                ".toml",
                f"hold_out = {n}",
            )
            for n in (1, -3)
        ),
        ("[ids]\na = 0\nb = []", ".toml", "class 'b' has an empty list; give it a value"),
        ("[colours]\na = []\nb = [1, 2, 3]", ".toml", "class 'a' has an empty list"),
        ("{}", ".json", "is not a configuration of Mapillary"),
    ],
)
def test_wrong_lists_are_one_line_with_the_file(tmp_path, text, suffix, message):
    with pytest.raises(MidwayError, match=message) as error:
        classes_in(tmp_path, text, suffix)
    assert str(error.value).startswith(str(tmp_path / "classes"))
    assert "\n" not in str(error.value)


def test_files_that_are_no_text(tmp_path):
    with pytest.raises(MidwayError, match=r"nothing.txt: .*No such file.*; check the path"):
        read_dataset(str(tmp_path / "nothing.txt"))
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MidwayError, match="is not UTF-8 text"):
        read_dataset(str(tmp_path / "a.txt"))


def test_lists_that_give_the_same_classes(tmp_path):
    one = classes_in(tmp_path, "road\ncar\n")
    assert one.gives_same(class_list(("road", "car"), ignored=(255,)))
    assert not one.gives_same(classes_in(tmp_path, "car\nroad\n"))
