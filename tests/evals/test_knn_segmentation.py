"""Neighbours vote as a slow loop says; perfect features score 100."""

import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from midway.cli import main
from midway.data.segmentation.images import SegmentationData
from midway.data.segmentation.loader import WholeImage
from midway.errors import MidwayError
from midway.evals.probes.knn import KnnConfig, Memory, build_memory, predict, side_by_side
from midway.models.encoders.base import Encoder
from midway.models.encoders.resnet import ResNet, ResNetConfig
from midway.models.weights.save import save
from tests.data.segmentation.labelled_folders import paths, write_dummy
from tests.models.networks import random_network

CONFIG = KnnConfig(protocol="toy", data=SegmentationData(dataset="camvid"), precision="32-true")
NUM_CLASSES = 4


class Reader(Encoder):
    """Whose features are the class numbers painted into the middle of 8-pixel patches."""

    width, depth, stride = NUM_CLASSES, 1, 8

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def maps(self, images, levels):
        numbers = torch.nn.functional.one_hot(
            images[:, 0, 4::8, 4::8].long() % NUM_CLASSES, NUM_CLASSES
        )
        return [numbers.permute(0, 3, 1, 2).float() for _ in levels]

    def set_drop_path(self, p):
        raise NotImplementedError


def painted(blocks, size=None):
    """An image that shows the classes of its 8-pixel blocks, cut to a size."""
    classes = torch.tensor(blocks).repeat_interleave(8, 0).repeat_interleave(8, 1)
    height, width = size or classes.shape
    classes = classes[:height, :width]
    return WholeImage(
        index=0, image=classes.expand(3, -1, -1).float(), labels=classes.to(torch.uint8)
    )


def memory_of(images, per_image=100, config=CONFIG):
    return build_memory(Reader(), images, config, num_classes=NUM_CLASSES, per_image=per_image)


def test_votes_equal_a_slow_loop():
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(20, 6, generator=generator), dim=1)
    mean = torch.randn(6, generator=generator)
    memory = Memory(mean=mean, features=features, shares=torch.rand(20, 3, generator=generator))
    queries = 5 * torch.randn(4, 6, generator=generator)
    votes = memory.vote(queries, neighbours=7, temperature=0.1)
    for query, found in zip(queries, votes, strict=True):
        cosines = [float((query - mean) @ m / (query - mean).norm()) for m in features]
        nearest = sorted(range(20), key=lambda i, c=cosines: -c[i])[:7]
        weights = [math.exp(cosines[i] / 0.1) for i in nearest]
        slow = sum(w * memory.shares[i] for w, i in zip(weights, nearest, strict=True))
        torch.testing.assert_close(found, slow / sum(weights))
    assert memory.vote(queries, neighbours=99, temperature=0.1).shape == (4, 3)


def test_perfect_features_find_every_patch_of_images_that_no_patch_divides():
    train = painted([[0, 1, 2, 3], [3, 2, 1, 0]])
    test = painted([[2, 2, 0], [1, 3, 0], [1, 1, 1]], size=(21, 22))
    predicted = predict(Reader(), memory_of([train]), test, CONFIG)
    # Bilinear between patches, so the middles are what can be told.
    assert torch.equal(predicted[4::8, 4::8], test.labels[4::8, 4::8].long())
    assert predicted.shape == (21, 22)


def test_the_prediction_has_the_size_of_the_labels():
    train = painted([[0, 1], [2, 3]])
    asked = replace(train, labels=torch.zeros(40, 50))
    assert predict(Reader(), memory_of([train]), asked, CONFIG).shape == (40, 50)


def test_labels_of_another_size_than_the_image_cover_the_same_patches():
    same = painted([[0, 1, 2, 3], [3, 2, 1, 0]])
    large = same.labels.repeat_interleave(2, 0).repeat_interleave(2, 1)
    other = WholeImage(index=0, image=same.image, labels=large)
    torch.testing.assert_close(*(memory_of([each]).shares.sort(0)[0] for each in (same, other)))


def test_unlabelled_patches_are_not_remembered_and_rare_classes_are():
    blocks = [[0] * 30 for _ in range(30)]
    blocks[7][5] = 1
    blocks[9][9] = 255
    image = painted(blocks)
    everything = memory_of([image], per_image=10_000)
    assert len(everything.features) == 899
    assert everything.shares.sum(1).eq(1).all()
    some = [
        memory_of([image], per_image=4, config=KnnConfig(**(vars(CONFIG) | {"seed": seed})))
        for seed in range(20)
    ]
    assert {len(memory.features) for memory in some} == {4}
    # Drawn evenly, the one patch in 899 would hardly ever be among four.
    assert sum(bool(memory.shares[:, 1].any()) for memory in some) > 15


def test_without_labels_there_is_nothing_to_remember():
    with pytest.raises(MidwayError, match="no training pixel has a class"):
        memory_of([painted([[255, 255]])])


@pytest.fixture
def place(tmp_path):
    torch.manual_seed(0)
    save(random_network(), tmp_path / "net.safetensors")
    write_dummy("camvid", tmp_path / "camvid", train=3, val=2)
    return tmp_path


def test_a_network_is_scored_from_one_command_and_the_same_again(place, capsys):
    words = ["eval", "knn_segmentation", "--protocol", "camvid"]
    words += ["--network", str(place / "net.safetensors"), "--data.root", str(place / "camvid")]
    words += ["--data.num-workers", "0", "--folder", str(place / "out"), "--json"]
    found = []
    for _ in range(2):
        assert main(words) == 0
        printed = capsys.readouterr().out.splitlines()
        assert any("patches stored" in line for line in printed)
        assert not any("not saved" in line for line in printed)
        found.append(json.loads(printed[-1]))
    assert json.loads((place / "out" / "results.json").read_text()) == found[1]
    assert (place / "out" / "confusion.png").is_file()
    for results in found:
        for name in ("seconds", "date", "environment"):
            del results[name]
    assert found[0] == found[1]
    assert found[0]["memory"] > 0
    folder = words.index("--folder")
    assert main([*words[:folder], *words[folder + 2 :]]) == 0
    assert "not saved; --folder DIR keeps the results for" in capsys.readouterr().out
    # Brightness tells the classes, and even random features see it.
    assert found[0]["accuracy"] > 20


def test_images_seen_in_training_are_recognised(place):
    camvid = place / "camvid"
    for number in range(2):
        for seen, asked in zip(
            paths("camvid", camvid, "train", number),
            paths("camvid", camvid, "val", number),
            strict=True,
        ):
            asked.write_bytes(seen.read_bytes())
    words = ["eval", "knn_segmentation", "--protocol", "camvid", "--neighbours", "1"]
    words += ["--network", str(place / "net.safetensors"), "--data.root", str(camvid)]
    words += ["--data.num-workers", "0", "--folder", str(place / "out"), "--data.test-scale"]
    assert main([*words, "native"]) == 0
    results = json.loads((place / "out" / "results.json").read_text())
    assert results["accuracy"] > 60
    label = paths("camvid", camvid, "val", 0)[1]
    with Image.open(label) as picture:
        assert len(np.unique(np.asarray(picture))) > 3


def test_a_direction_that_all_features_share_changes_nothing():
    class Shifted(Reader):
        def maps(self, images, levels):
            return [
                found + torch.tensor([40.0, 0, 0, 0])[:, None, None]
                for found in super().maps(images, levels)
            ]

    train, test = painted([[0, 1, 2, 3], [3, 2, 1, 0]]), painted([[2, 1, 0], [1, 3, 0]])
    found = []
    for reader in (Reader(), Shifted()):
        memory = build_memory(reader, [train], CONFIG, num_classes=NUM_CLASSES, per_image=100)
        found.append(predict(reader, memory, test, CONFIG))
    assert torch.equal(*found)


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_images_come_in_order_with_what_was_made_of_them(three_threads):
    threads = []

    def sums(each):
        threads.append(torch.get_num_threads())
        time.sleep(0.02 if each.image.sum() % 2 else 0)
        return each.image.sum()

    images = [painted([[k % 4, k % 3], [0, 1]]) for k in range(20)]
    pairs = [*side_by_side(sums, images, torch.device("cpu"))]
    assert all(each is image for (each, _), image in zip(pairs, images, strict=True))
    assert [total for _, total in pairs] == [image.image.sum() for image in images]
    assert threads == [1] * 20
    assert torch.get_num_threads() == 3


def test_an_error_in_a_thread_is_raised_and_torch_has_its_threads_back(three_threads):
    def broken(each):
        raise MidwayError("broken")

    with pytest.raises(MidwayError, match="broken"):
        list(side_by_side(broken, [painted([[0]])], torch.device("cpu")))
    assert torch.get_num_threads() == 3


def test_a_folder_that_cannot_take_the_results_is_told_at_once(place, capsys):
    words = ["eval", "knn_segmentation", "--protocol", "camvid"]
    words += ["--network", str(place / "net.safetensors"), "--data.root", str(place / "camvid")]
    run, file = place / "run", place / "net.safetensors"
    run.mkdir()
    (run / "config.json").write_text("{}")
    for folder, message in ((run, "is a run folder"), (file, "File exists; give another")):
        assert main([*words, "--folder", str(folder)]) == 2
        assert message in capsys.readouterr().err
    assert [path.name for path in run.iterdir()] == ["config.json"]


def test_what_makes_no_sense_is_told(place, capsys):
    command = ["eval", "knn_segmentation"]
    assert main([*command, "--resume", str(place)]) == 2
    assert "cannot be resumed; start it again" in capsys.readouterr().err
    assert main([*command, "--protocol", "camvid", "--neighbours", "0"]) == 2
    assert "neighbours = 0; give 1 or more" in capsys.readouterr().err


def test_levels_of_a_resnet_are_compared_at_their_own_stride():
    resnet = ResNet(ResNetConfig(blocks=(1, 1, 1, 1), width=4)).eval()
    image = painted([[0, 1, 2, 3], [3, 2, 1, 0]], size=(16, 30))
    for level, cells in ((1, 8 * 16), (-1, 1)):
        config = replace(CONFIG, level=level)
        memory = build_memory(resnet, [image], config, num_classes=NUM_CLASSES, per_image=999)
        labelled = min(cells, 4 * 8)  # cells below and beside the image have no label
        assert len(memory.features) == labelled
        assert predict(resnet, memory, image, config).shape == (16, 30)
