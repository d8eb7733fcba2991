"""Which crops a step has depends on the seed and its number alone."""

import numpy as np
import pytest
import torch
from PIL import Image

from midway.data.segmentation.classes import IGNORE
from midway.data.segmentation.find import find_labelled
from midway.data.segmentation.images import SegmentationData
from midway.data.segmentation.loader import SegmentationLoader, read_whole_image, whole_images
from midway.errors import MidwayError
from tests.data.segmentation.labelled_folders import write_dummy


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("camvid")
    write_dummy("camvid", folder, train=6, val=5)
    return folder


def loader_of(root, **changes):
    settings = {"batch_size": 4, "num_workers": 0, "crop": (32, 48), "scale": (80, 48)} | changes
    process = {name: settings.pop(name) for name in ("rank", "world_size") if name in settings}
    seed = settings.pop("seed", 0)
    data = SegmentationData(dataset="camvid", root=str(root), **settings)
    return SegmentationLoader(find_labelled(data, "train"), data, seed=seed, **process)


def same(one, two):
    return all(torch.equal(vars(one)[name], vars(two)[name]) for name in vars(one))


def test_a_batch_has_its_shapes_and_types(root):
    batch = next(loader_of(root).batches(0, 1))
    assert len(batch) == 4
    assert (batch.images.shape, batch.images.dtype) == ((4, 3, 32, 48), torch.uint8)
    assert (batch.labels.shape, batch.labels.dtype) == ((4, 32, 48), torch.uint8)
    assert batch.distortion.shape == (4, 5)
    assert batch.sizes.shape == (4, 2)
    assert same(batch.to(torch.device("cpu")), batch)


def test_a_step_is_the_same_from_any_start_and_with_workers(root):
    whole = [*loader_of(root).batches(0, 4)]
    late = [*loader_of(root).batches(2, 4)]
    worked = [*loader_of(root, num_workers=2).batches(0, 4)]
    assert all(map(same, whole[2:], late))
    assert all(map(same, whole, worked))
    assert not same(whole[0], next(loader_of(root, seed=1).batches(0, 1)))


def test_two_processes_share_the_batch_of_one(root):
    whole = next(loader_of(root).batches(1, 2))
    parts = [
        next(loader_of(root, rank=rank, world_size=2).batches(1, 2)).images for rank in range(2)
    ]
    assert torch.equal(torch.stack(parts, dim=1).flatten(0, 1), whole.images)
    with pytest.raises(MidwayError, match="cannot be shared by 3 processes"):
        loader_of(root, rank=0, world_size=3)


def test_every_pass_sees_every_image_once_in_another_order(root):
    plain = {"crop": (48, 80), "ratio": (1, 1), "p_flip": 0, "distort": False, "batch_size": 6}
    batches = [*loader_of(root, **plain).batches(0, 2)]
    sums = [batch.images.flatten(1).float().sum(1).tolist() for batch in batches]
    assert sorted(sums[0]) == sorted(sums[1])
    assert len(set(sums[0])) == 6
    assert sums[0] != sums[1]
    assert loader_of(root, **plain).steps_per_epoch == 1
    assert loader_of(root, batch_size=16).steps_per_epoch == 1


def test_images_smaller_than_the_crop_are_filled_with_ignored_pixels(root):
    batch = next(loader_of(root, crop=(64, 64), ratio=(1, 1)).batches(0, 1))
    assert (batch.sizes == torch.tensor([48, 64])).all()
    assert (batch.labels[:, 48:] == IGNORE).all()
    assert (batch.images[:, :, 48:] == 0).all()
    assert (batch.labels[:, :48] != IGNORE).any()


def test_a_worker_reports_a_bad_file_too(tmp_path):
    write_dummy("camvid", tmp_path, train=2, val=2)
    for name in ("train", "test"):
        (tmp_path / name / "a0000.png").write_bytes(b"no image")
    loader = loader_of(tmp_path, num_workers=1)
    with pytest.raises(MidwayError, match=r"train/a0000.png: cannot be read as an image"):
        next(loader.batches(0, 1))
    data = SegmentationData(dataset="camvid", root=str(tmp_path), num_workers=1)
    with pytest.raises(MidwayError, match=r"test/a0000.png: cannot be read as an image"):
        next(whole_images(find_labelled(data, "val"), data))


def test_whole_images_come_in_order_shared_by_the_processes_and_with_labels_as_they_are(root):
    data = SegmentationData(dataset="camvid", root=str(root), num_workers=0, test_scale=(160, 96))
    found = find_labelled(data, "val")
    assert [each.index for each in whole_images(found, data)] == [0, 1, 2, 3, 4]
    shares = [
        [each.index for each in whole_images(found, data, rank=rank, world_size=2)]
        for rank in range(2)
    ]
    assert shares == [[0, 2, 4], [1, 3]]
    whole = read_whole_image(found, data, 3)
    assert whole.image.shape == (3, 96, 160)
    assert torch.equal(whole.labels, torch.from_numpy(found.read(3)[1]))
    with Image.open(found[3].image) as file:
        enlarged = np.asarray(file.convert("RGB").resize((160, 96), Image.Resampling.BILINEAR))
    red = whole.image[0] * 0.229 + 0.485
    torch.testing.assert_close(red, torch.from_numpy(enlarged[..., 0] / 255).float())
