"""Depth is found in NYU's layout and read in metres; errors name the file."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from midway.data.depth.images import DepthData, find_depth, is_known, read_depth, require_depth
from midway.errors import MidwayError
from tests.data.depth.made_nyu import write_nyu


@pytest.mark.parametrize("top", ["", "nyu_depth_v2"])
def test_both_splits_are_found_below_the_root_or_its_parent(tmp_path, top):
    write_nyu(tmp_path / top)
    data = DepthData(root=str(tmp_path))
    train = find_depth(data, "train")
    assert [item.name for item in train] == [
        *("office_0000/rgb_00000", "office_0000/rgb_00002"),
        *("office_0001/rgb_00001", "office_0001/rgb_00003"),
    ]
    assert len(find_depth(data, "val")) == 2
    image, depth = train[0].read()
    assert image.shape == (48, 64, 3)
    assert depth.dtype == np.float32
    assert depth[0, 0] == 0
    np.testing.assert_allclose(depth[8::16, 8::16], image[8::16, 8::16, 0] / 25, atol=0.2)


def test_depth_out_of_range_is_unknown():
    depth = np.array([[0, 0.5, 10, 10.5]], np.float32)
    assert is_known(depth, DepthData()).tolist() == [[False, True, True, False]]


def test_errors_name_the_file_and_the_remedy(tmp_path):
    data = DepthData(root=str(tmp_path))
    with pytest.raises(
        MidwayError, match="not the layout of NYU Depth v2; expected sync/SCENE/rgb"
    ):
        find_depth(data, "train")
    with pytest.raises(MidwayError, match=r"data.root is not set"):
        find_depth(DepthData(), "train")
    write_nyu(tmp_path)
    (first, *_) = find_depth(data, "train")
    whole = Path(first.depth).read_bytes()
    Path(first.depth).unlink()
    with pytest.raises(MidwayError, match=r"rgb_00000.jpg: has no sync_depth_00000.png beside it"):
        find_depth(data, "train")
    Image.new("L", (64, 48)).save(first.depth)
    with pytest.raises(MidwayError, match=r"is PNG of mode L; give 16-bit grey PNG"):
        read_depth(first.depth)
    Image.fromarray(np.ones((48, 60), np.uint16)).save(first.depth)
    with pytest.raises(MidwayError, match="depth of 60x48 pixels for an image of 64x48"):
        first.read()
    Path(first.depth).write_bytes(whole)
    with pytest.raises(
        MidwayError, match=r"no pixel of it or of the other 3 has a depth up to 0\.5"
    ):
        require_depth(find_depth(data, "train"), DepthData(max_metres=0.5))


@pytest.mark.parametrize("which", ["image", "depth"])
def test_files_that_viewers_turn_are_refused(tmp_path, which):
    write_nyu(tmp_path)
    (first, *_) = find_depth(DepthData(root=str(tmp_path)), "train")
    location = getattr(first, which)
    exif = Image.Exif()
    exif[0x0112] = 3
    with Image.open(location) as image:
        image.load()
        image.save(location, exif=exif)
    with pytest.raises(MidwayError, match=rf"{location}: has orientation 3 in its EXIF"):
        first.read()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "data.batch_size and crop: give 1 or more"),
        ({"num_workers": -1}, "data.num_workers: give 0 to"),
        ({"p_flip": 2.0}, "data.p_flip: give a probability"),
        ({"max_metres": 0.0}, "data.max_metres: give more than 0.001"),
    ],
)
def test_wrong_options_are_refused(wrong, message):
    with pytest.raises(MidwayError, match=message):
        DepthData(**wrong)
