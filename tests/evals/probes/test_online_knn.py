"""Scores during training: those of the evaluation, and without a trace."""

import pytest
import torch

from midway.data.segmentation.classes import IGNORE
from midway.data.segmentation.sample import LabelsConfig, read_sample
from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_segmentation_dataset
from midway.evals.knn_segmentation import PROTOCOLS, evaluate
from midway.evals.probes.knn import KnnConfig, build_memory, predict
from midway.evals.probes.online_knn import KnnHealth
from midway.models.weights.save import save
from midway.models.weights.sources import EncoderSource
from midway.train.run import RunConfig
from tests.data.segmentation.labelled_folders import paths, write_dummy
from tests.models.networks import random_network

WORLD = WorldConfig(height=48, width=64, num_frames=2, fps=1.0)
SIZE = (64, 48)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    root = tmp_path_factory.mktemp("worlds")
    write_segmentation_dataset(root, WORLD, train_seeds=range(4), val_seeds=range(4, 7))
    return root


def _health(root, encoder, *, dataset="synthetic", precision="32-true", **changes):
    labels = LabelsConfig(dataset=dataset, root=str(root), **({"scale": SIZE} | changes))
    health = KnnHealth(labels, encoder, RunConfig(folder=root / "run", precision=precision))
    health.read()
    return health


def _network():
    torch.manual_seed(0)
    return random_network()


def test_it_is_the_score_of_the_evaluation_where_nothing_is_left_out(worlds, tmp_path):
    network = _network()
    save(network, tmp_path / "net.safetensors")
    found = _health(worlds, network.encoder, memory_size=400)()
    base = PROTOCOLS["synthetic"]()
    config = dict(vars(base)) | {
        "data": type(base.data)(
            dataset="synthetic", root=str(worlds), test_scale=SIZE, num_workers=0
        ),
        "encoder": EncoderSource(network=str(tmp_path / "net.safetensors"), weights="student"),
        "memory_size": 400,
    }
    wanted = evaluate(type(base)(**config))
    assert found == {"knn_miou": pytest.approx(wanted["miou"], rel=1e-9)}
    assert 1 < found["knn_miou"] < 99


def test_it_equals_a_slow_count_over_pixels(worlds):
    encoder = _network().encoder
    found = _health(worlds, encoder, images=3, memory_size=60)()
    labels = LabelsConfig(dataset="synthetic", root=str(worlds), images=3, scale=SIZE)
    sample, how = read_sample(labels), KnnConfig(protocol="slow", data=labels.data)
    reader = encoder.eval()
    memory = build_memory(
        reader, sample.train, how, num_classes=sample.num_classes, per_image=60 // 3
    )
    both, either = [0] * sample.num_classes, [0] * sample.num_classes
    for each in sample.test:
        guessed = predict(reader, memory, each, how).flatten().tolist()
        for is_class, guess in zip(each.labels.flatten().tolist(), guessed, strict=True):
            if is_class == IGNORE:
                continue
            both[is_class] += guess == is_class
            for one in {is_class, guess}:
                either[one] += 1
    shares = [b / e for b, e in zip(both, either, strict=True) if e]
    assert found["knn_miou"] == pytest.approx(100 * sum(shares) / len(shares))


def test_it_reads_the_encoder_as_it_is_now_and_the_same_gives_the_same(worlds):
    encoder = _network().encoder
    health = _health(worlds, encoder)
    before, again = health(), health()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_()
    assert before == again
    assert health() != before


def test_images_seen_in_training_are_recognised(tmp_path):
    write_dummy("camvid", tmp_path, size=(64, 96), train=2, val=2)
    for number in range(2):
        seen, asked = (paths("camvid", tmp_path, split, number) for split in ("train", "val"))
        for one, other in zip(seen, asked, strict=True):
            other.write_bytes(one.read_bytes())
    found = _health(tmp_path, _network().encoder, dataset="camvid", scale=(96, 64))()
    assert found["knn_miou"] > 40


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_it_leaves_no_trace_in_modes_gradients_or_generators(worlds, precision):
    encoder = _network().encoder.train()
    encoder.blocks[0].eval()
    weights = [parameter.clone() for parameter in encoder.parameters()]
    torch.manual_seed(3)
    before = torch.get_rng_state()
    health = _health(worlds, encoder, precision=precision)

    modes = []
    handle = encoder.blocks[1].register_forward_pre_hook(lambda m, _: modes.append(m.training))
    health()
    handle.remove()
    assert set(modes) == {False}
    assert torch.equal(torch.get_rng_state(), before)
    assert encoder.training
    assert not encoder.blocks[0].training
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert all(map(torch.equal, encoder.parameters(), weights))
