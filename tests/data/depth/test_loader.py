"""Crops keep image and depth together, do not depend on workers, and pad small images."""

import pickle
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from midway.data.depth.images import DepthData, find_depth
from midway.data.depth.loader import DepthCropReader, DepthLoader, DepthReader, whole_depth
from tests.data.depth.made_nyu import write_nyu


@pytest.fixture
def data(tmp_path):
    write_nyu(tmp_path)
    return DepthData(root=str(tmp_path), batch_size=2, num_workers=0, crop=(32, 40))


def batches(data, steps=4, **changes):
    loader = DepthLoader(find_depth(data, "train"), data, seed=0, **changes)
    return [*loader.batches(0, steps)]


def test_image_and_depth_are_cut_together(data):
    for batch in batches(data, 4):
        assert batch.images.shape == (2, 3, 32, 40)
        assert batch.depth.shape == (2, 32, 40)
        known = batch.depth > 0
        # The median is away from the edges of blocks, which JPEG blurs.
        assert (batch.images[:, 0] / 25 - batch.depth).abs()[known].median() < 0.1


def test_image_and_depth_are_mirrored_together(data):
    whole = replace(data, crop=(48, 64))
    plain, mirrored = (batches(replace(whole, p_flip=p), 1)[0] for p in (0.0, 1.0))
    assert torch.equal(mirrored.images, plain.images.flip(-1))
    assert torch.equal(mirrored.depth, plain.depth.flip(-1))


def test_ranks_share_the_samples_of_a_step(data):
    one = batches(data, 2)
    parts = [batches(data, 2, rank=rank, world_size=2) for rank in range(2)]
    for number, whole in enumerate(one):
        assert torch.equal(whole.depth, torch.cat([part[number].depth for part in parts]))


def test_the_readers_travel_to_workers(data):
    images = find_depth(data, "train")
    for reader in (DepthCropReader(images, data, 0), DepthReader(images)):
        assert pickle.loads(pickle.dumps(reader)) == reader


def test_draws_differ_between_epochs(data):
    first = batches(data, 8)
    assert not any(torch.equal(a.depth, b.depth) for a, b in pairwise(first))


def test_images_smaller_than_the_crop_are_padded_without_depth(tmp_path):
    write_nyu(tmp_path, size=(20, 24))
    data = DepthData(root=str(tmp_path), batch_size=2, num_workers=0, crop=(32, 40), p_flip=0)
    batch = batches(data, 1)[0]
    assert not batch.depth[:, 20:].any()
    assert not batch.depth[:, :, 24:].any()
    assert batch.depth[:, 1:20, :24].all()


def test_whole_images_come_in_order_and_by_rank(data):
    images = find_depth(data, "train")
    found = [*whole_depth(images, data, rank=1, world_size=2)]
    assert [index for index, _, _ in found] == [1, 3]
    np.testing.assert_array_equal(found[0][2], images[1].read()[1])
