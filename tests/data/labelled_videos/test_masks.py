"""Layouts of videos with masks, and errors for invalid ones."""

import re

import numpy as np
import pytest
from PIL import Image

from midway.data.labelled_videos.masks import find_mask_videos, objects_of, read_frame, read_mask
from midway.errors import MidwayError


def _save(path, array, *, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette:
        image.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
    image.save(path)


def _davis(root, names=("bear", "dog"), *, resolution="480p/"):
    for name in names:
        for number in range(3):
            frame = np.full((8, 12, 3), 10 * number, np.uint8)
            _save(root / f"JPEGImages/{resolution}{name}/{number:05d}.jpg", frame)
            mask = np.zeros((8, 12), np.uint8)
            mask[number, :2] = (1, 2)
            path = root / f"Annotations/{resolution}{name}/{number:05d}.png"
            _save(path, mask, palette=True)
    return root


@pytest.mark.parametrize("resolution", ["480p/", "Full-Resolution/", ""])
def test_a_davis_tree_is_found_at_any_resolution(tmp_path, resolution):
    videos = find_mask_videos(_davis(tmp_path, resolution=resolution))
    assert [video.name for video in videos] == ["bear", "dog"]
    assert [path.name for path in videos[0].frames] == ["00000.jpg", "00001.jpg", "00002.jpg"]
    assert [path.name for path in videos[0].masks] == ["00000.png", "00001.png", "00002.png"]


def test_a_split_names_videos_in_the_manner_of_either_year(tmp_path):
    _davis(tmp_path)
    for year, text in {
        "2017": "dog\n",
        "2016": "/JPEGImages/480p/dog/00000.jpg /Annotations/480p/dog/00000.png\n" * 2,
    }.items():
        path = tmp_path / "ImageSets" / year / "val.txt"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        (video,) = find_mask_videos(tmp_path, f"{year}/val")
        assert video.name == "dog"


def test_plain_folders_of_frames_and_masks_are_found(tmp_path, shared_data):
    videos = find_mask_videos(shared_data / "tracking")
    assert [(v.name, len(v.frames)) for v in videos] == [("bmx-trees", 80), ("parkour", 21)]
    (alone,) = find_mask_videos(shared_data / "tracking/parkour")
    assert alone == videos[1]
    mask = read_mask(alone.masks[0], (480, 854))
    assert objects_of(mask, alone.masks[0]) == [255]


def test_masks_are_read_as_ids_for_any_palette(tmp_path):
    _davis(tmp_path)
    path = tmp_path / "Annotations/480p/dog/00001.png"
    mask = read_mask(path, (8, 12))
    assert mask[1, :3].tolist() == [1, 2, 0]
    assert objects_of(mask, path) == [1, 2]
    _save(tmp_path / "grey.png", np.repeat(mask[..., None], 3, axis=2))
    np.testing.assert_array_equal(read_mask(tmp_path / "grey.png", None), mask)


def test_255_is_unlabelled_beside_other_ids_and_an_object_alone(tmp_path):
    mask = np.zeros((4, 4), np.uint8)
    mask[0] = 255
    assert objects_of(mask, tmp_path) == [255]
    mask[1] = 3
    assert objects_of(mask, tmp_path) == [3]


def test_wrong_layouts_and_sizes_are_one_line_each(tmp_path):
    root = _davis(tmp_path / "davis")
    coloured = np.zeros((8, 12, 3), np.uint8)
    coloured[0, 0] = (1, 2, 3)
    _save(tmp_path / "coloured.png", coloured)
    (tmp_path / "other" / "videos").mkdir(parents=True)
    bear = root / "Annotations/480p/bear/00000.png"
    noise = np.arange(96, dtype=np.uint8).reshape(8, 12)
    cases = {
        "no such folder": lambda: find_mask_videos(tmp_path / "none"),
        "expected JPEGImages/480p.*found videos": lambda: find_mask_videos(tmp_path / "other"),
        "cannot be read; give a list below": lambda: find_mask_videos(root, "2017/val"),
        "has no object ids": lambda: read_mask(tmp_path / "coloured.png", None),
        "12 x 8 pixels, the video's first frame has 13 x 8": lambda: read_mask(bear, (8, 13)),
        "frames and masks of one size": lambda: read_frame(tmp_path / "coloured.png", (9, 12)),
        "0 objects in the first mask": lambda: objects_of(np.zeros((2, 2), np.uint8), bear),
        "95 objects in the first mask": lambda: objects_of(noise, bear),
    }
    for message, call in cases.items():
        with pytest.raises(MidwayError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_a_video_needs_two_frames_and_a_first_mask(tmp_path):
    root = _davis(tmp_path, ["bear"])
    (root / "Annotations/480p/bear/00000.png").unlink()
    with pytest.raises(MidwayError, match=re.escape("no mask 00000.png of the first frame")):
        find_mask_videos(root)
    for number in (1, 2):
        (root / f"JPEGImages/480p/bear/{number:05d}.jpg").unlink()
    with pytest.raises(MidwayError, match="has 1 frame; propagation needs two"):
        find_mask_videos(root)
