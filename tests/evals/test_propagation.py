"""Masks carried through videos end to end, and scored."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from midway.analysis.label_propagation import PropagationConfig
from midway.cli import main
from midway.data.labelled_videos.masks import find_mask_videos, read_mask
from midway.errors import MidwayError
from midway.evals.propagation import (
    FeatureConfig,
    carry,
    mean_over_objects,
    score_masks,
)
from midway.models.encoders.base import Encoder
from midway.models.weights.save import save

from ..models.networks import random_network

COLOURS = {7: (200, 30, 30), 9: (30, 60, 220)}


class Pixels(Encoder):
    """Every pixel is a patch, and its colour the feature."""

    width, depth, stride = 3, 1, 1

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def maps(self, images, levels):
        return [images * self.scale]

    def set_drop_path(self, p):
        pass


@pytest.fixture
def root(tmp_path):
    """Two squares that go their ways over green, in a tree of DAVIS."""
    for number in range(8):
        frame = np.full((24, 40, 3), (20, 150, 40), np.uint8)
        mask = np.zeros((24, 40), np.uint8)
        for thing, (y, x) in {7: (2 + number, 3 + 2 * number), 9: (14, 30 - 2 * number)}.items():
            frame[y : y + 6, x : x + 6] = COLOURS[thing]
            mask[y : y + 6, x : x + 6] = thing
        for part, array, suffix in (("JPEGImages", frame, "png"), ("Annotations", mask, "png")):
            path = tmp_path / "davis" / part / "480p" / "squares" / f"{number:05d}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    return tmp_path / "davis"


def test_a_perfect_mask_has_a_j_and_f_of_one(root, shared_data):
    for folder in (root, shared_data / "tracking/parkour"):
        (video,) = find_mask_videos(folder)
        true = np.stack([read_mask(path, None) for path in video.masks])
        objects = np.unique(true[0])[1:].tolist()
        scores = score_masks(video, true, objects)
        assert [*scores] == [str(number) for number in objects]
        recall = {"j_recall": 1, "f_recall": 1, "j_decay": 0, "f_decay": 0}
        assert mean_over_objects([scores]) == {"j": 1, "f": 1, "jf": 1} | recall


def test_objects_that_their_colour_tells_are_carried_along(root):
    (video,) = find_mask_videos(root)
    features = FeatureConfig(short_side=24)
    masks, objects = carry(Pixels(), video, features, PropagationConfig())
    assert objects == [7, 9]
    assert mean_over_objects([score_masks(video, masks, objects)])["jf"] > 0.98
    still = np.stack([masks[0]] * 8)
    assert mean_over_objects([score_masks(video, still, objects)])["jf"] < 0.5


def test_what_moves_farther_than_the_radius_is_lost(root):
    (video,) = find_mask_videos(root)
    how = PropagationConfig(radius=0)
    masks, objects = carry(Pixels(), video, FeatureConfig(short_side=24), how)
    assert mean_over_objects([score_masks(video, masks, objects)])["j"] < 0.5


def test_unlabelled_pixels_are_no_object_and_are_not_scored(root):
    for path in (root / "Annotations/480p/squares").iterdir():
        mask = np.array(Image.open(path))
        mask[20:, :] = 255
        Image.fromarray(mask).save(path)
    (video,) = find_mask_videos(root)
    _, objects = carry(Pixels(), video, FeatureConfig(short_side=24), PropagationConfig())
    assert objects == [7, 9]
    true = np.stack([read_mask(path, None) for path in video.masks])
    wrong = np.where(true == 255, 7, true)
    assert mean_over_objects([score_masks(video, wrong, objects)])["jf"] == 1


def test_dinos_published_sizes_carry_objects_too(root):
    (video,) = find_mask_videos(root)
    how = PropagationConfig(as_published=True)
    # 64 x 40 pixels of 40 x 24: the longer side is a multiple of 64, the shorter is as given.
    masks, objects = carry(Pixels(), video, FeatureConfig(short_side=40), how)
    assert mean_over_objects([score_masks(video, masks, objects)])["jf"] > 0.9
    with pytest.raises(MidwayError, match="patches of 1 do not divide 0 x 24 pixels"):
        carry(Pixels(), video, FeatureConfig(short_side=24), how)


def test_the_first_and_the_last_frame_do_not_count(root):
    (video,) = find_mask_videos(root)
    true = np.stack([read_mask(path, None) for path in video.masks])
    wrong = true.copy()
    wrong[[0, -1]] = 0
    assert mean_over_objects([score_masks(video, wrong, [7, 9])])["jf"] == 1
    wrong[1][wrong[1] == 7] = 0
    scores = score_masks(video, wrong, [7, 9])
    assert scores["7"]["j"] == pytest.approx(5 / 6)
    assert mean_over_objects([scores])["j"] == pytest.approx((5 / 6 + 1) / 2)


def test_real_masks_are_carried_scored_and_written(shared_data, tmp_path, capsys):
    source = shared_data / "tracking/bmx-trees"
    for part in ("frames", "masks"):
        (tmp_path / "bmx" / part).mkdir(parents=True)
        for path in sorted((source / part).iterdir())[:5]:
            (tmp_path / "bmx" / part / path.name).symlink_to(path)
    save(random_network(), tmp_path / "net.safetensors")
    words = ["--network", str(tmp_path / "net.safetensors"), "--data.root", str(tmp_path / "bmx")]
    words += ["--short-side", "64", "--accelerator", "cpu", "--folder", str(tmp_path / "out")]
    assert main(["eval", "propagation", *words, "--json"]) == 0
    results = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert results == json.loads((tmp_path / "out/results.json").read_text())
    assert results["videos"]["bmx"]["frames"] == 5
    assert 0 < results["jf"] < 1
    written = read_mask(tmp_path / "out/masks/bmx/00000.png", (240, 432))
    np.testing.assert_array_equal(written, read_mask(source / "masks/00000.png", None))


def test_frames_of_another_size_and_missing_networks_are_one_line(root, tmp_path, capsys):
    assert main(["eval", "propagation", "--data.root", str(root)]) == 2
    assert "no network" in capsys.readouterr().err
    save(random_network(), tmp_path / "net.safetensors")
    path = root / "JPEGImages/480p/squares/00003.png"
    Image.fromarray(np.zeros((24, 42, 3), np.uint8)).save(path)
    words = ["--network", str(tmp_path / "net.safetensors"), "--data.root", str(root)]
    assert main(["eval", "propagation", *words, "--short-side", "24"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}: 42 x 24 pixels, the video's first frame has 40 x 24" in line


def test_masks_of_the_first_frame_alone_cannot_be_scored(root):
    for path in sorted((root / "Annotations/480p/squares").iterdir())[1:]:
        path.unlink()
    (video,) = find_mask_videos(root)
    with pytest.raises(MidwayError, match="no frame between the first and the last has a mask"):
        score_masks(video, np.zeros((8, 24, 40), np.uint8), [7])
