"""Labelled sample of a run: the choice of images, and options that are refused at the start."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from midway.config import from_json, to_json
from midway.data.segmentation.classes import IGNORE
from midway.data.segmentation.sample import LabelsConfig, read_sample
from midway.errors import MidwayError
from tests.data.segmentation.labelled_folders import NUM_CLASSES, paths, write_dummy


def _config(root, **changes):
    return LabelsConfig(**({"dataset": "camvid", "root": str(root)} | changes))


def test_images_are_chosen_evenly_and_all_if_there_are_fewer(tmp_path):
    write_dummy("camvid", tmp_path, train=9, val=3)
    sample = read_sample(_config(tmp_path, images=5))
    assert [each.index for each in sample.train] == [0, 2, 4, 6, 8]
    assert [each.index for each in sample.test] == [0, 1, 2]
    assert sample.num_classes == NUM_CLASSES["camvid"]


def test_images_and_labels_shrink_together(tmp_path):
    write_dummy("camvid", tmp_path, size=(48, 80), train=1, val=1)
    each = read_sample(_config(tmp_path, scale=(40, 24))).train[0]
    assert each.image.shape == (3, 24, 40)
    with Image.open(paths("camvid", tmp_path, "train", 0)[1]) as picture:
        stored = np.asarray(picture)
    # Blocks of 16 pixels are blocks of 8 at half the size.
    wanted = np.where(stored == 11, IGNORE, stored)[8::16, 8::16]
    assert torch.equal(each.labels, torch.from_numpy(wanted.repeat(8, 0).repeat(8, 1)))


def test_reading_draws_nothing(tmp_path):
    write_dummy("camvid", tmp_path)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    read_sample(_config(tmp_path))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["bdd100k", "cityscapes", "ade20k", "synthetic", "camvid"])
def test_every_dataset_is_read_by_its_name_in_the_evaluations(kind, tmp_path):
    write_dummy(kind, tmp_path, train=2, val=1)
    sample = read_sample(_config(tmp_path, dataset=kind))
    assert (len(sample.train), len(sample.test)) == (2, 1)
    assert sample.num_classes == NUM_CLASSES[kind]


def test_images_without_a_class_are_refused_though_others_have_one(tmp_path):
    write_dummy("camvid", tmp_path, train=3, val=2)
    label = paths("camvid", tmp_path, "val", 0)[1]
    Image.fromarray(np.full((48, 80), 11, np.uint8)).save(label)
    with pytest.raises(MidwayError, match="no pixel of 1 image chosen from split 'val'"):
        read_sample(_config(tmp_path, images=1))
    assert len(read_sample(_config(tmp_path, images=2)).test) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": ""}, "labels.dataset: not set; give the dataset in here: bdd100k"),
        ({"dataset": "camvit"}, "labels.dataset: no 'camvit'"),
        ({"dataset": "wt_sem"}, "labels.dataset: no 'wt_sem'"),
        ({"root": ""}, "no labels.root; give its folder"),
        ({"images": 0}, "must be 1 or more"),
        ({"scale": (512, 0)}, "must be 1 or more"),
    ],
)
def test_invalid_options_are_reported_in_one_line(changes, message):
    with pytest.raises(MidwayError) as caught:
        LabelsConfig(**({"dataset": "camvid", "root": "here"} | changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_configuration_survives_json():
    config = _config("here", scale=(64, 32))
    assert from_json(LabelsConfig, json.loads(json.dumps(to_json(config))), where="") == config
