"""Encoders of files: converted ones, exported ones, those of runs of any method."""

import json
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from midway.errors import MidwayError
from midway.models.encoders.base import describe
from midway.models.encoders.resnet import ResNet, ResNetConfig
from midway.models.encoders.vit import VisionTransformer
from midway.models.weights.files import read_weights
from midway.models.weights.load import load
from midway.models.weights.release import ReleaseHints
from midway.models.weights.save import save
from midway.models.weights.sources import EncoderSource, encoder_state, load_encoder, open_encoder
from tests.models.networks import ENCODER, random_network

IMAGES = torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(0))
RESNET = ResNetConfig(blocks=(1, 2, 1, 1), width=4)


class Objective(nn.Module):
    """Stands for a method that no module of this package has."""

    def __init__(self):
        super().__init__()
        self.student = VisionTransformer(ENCODER)
        self.teacher = ResNet(RESNET).requires_grad_(False)
        self.head = nn.BatchNorm1d(3)


@pytest.fixture
def run(tmp_path):
    """Run folder of another method, and its objective."""
    torch.manual_seed(0)
    objective = Objective()
    encoders = {"student": objective.student, "teacher": objective.teacher}
    content = {"model": objective.state_dict(), "encoders": describe(objective, encoders)}
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(content, folder / "checkpoints" / "step_00000001.ckpt")
    config = {"method": {"name": "someone's", "network": {"width": 3}}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder, objective


def same(one, two):
    mine, theirs = one.state_dict(), two.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[n], theirs[n]) for n in mine)


def test_the_encoders_of_a_run_open_without_its_method(run):
    folder, objective = run
    for which in ("student", "teacher"):
        encoder = load_encoder(str(folder), weights=which)
        assert same(encoder, getattr(objective, which))
        assert not encoder.training
        assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert not any("someone" in name for name in sys.modules)
    # A checkpoint that was moved away from its config.json tells its encoders all the same.
    (folder / "config.json").unlink()
    assert same(load_encoder(str(folder), weights="student"), objective.student)
    with pytest.raises(MidwayError, match="no encoder 'best'; there are student, teacher: choose"):
        load_encoder(str(folder), weights="best")


def test_a_run_of_another_method_is_no_midway_network(run):
    folder, _ = run
    assert not read_weights(folder).has_network
    with pytest.raises(MidwayError, match=r"no Midway network, but encoders \(student, teacher\)"):
        load(folder)
    source = EncoderSource(network=str(folder), features="backward")
    with pytest.raises(MidwayError, match="has no backward features"):
        open_encoder(source)


def test_an_exported_encoder_has_its_own_names_and_opens_again(run, tmp_path):
    _, objective = run
    for which in ("student", "teacher"):
        path = tmp_path / f"{which}.safetensors"
        save(getattr(objective, which), path)
        assert same(load_encoder(str(path)), getattr(objective, which))
    with pytest.raises(MidwayError, match=r"give a name ending in \.safetensors"):
        save(objective.student, tmp_path / "vit.pth")


def test_an_exported_network_tells_its_encoders_too(tmp_path):
    network = random_network()
    save(network, tmp_path / "net.safetensors")
    file = read_weights(tmp_path / "net.safetensors")
    prefixes = {name: spec.prefix for name, spec in file.encoders.items()}
    assert prefixes == {"student": "encoder.", "teacher": "teacher.encoder."}
    assert file.has_network


def test_a_file_of_an_encoder_with_timms_names_is_read_sizes_and_all(tmp_path):
    torch.manual_seed(0)
    vit = VisionTransformer(ENCODER).eval()
    path = str(tmp_path / "vit.safetensors")
    state = {name: tensor.contiguous() for name, tensor in vit.state_dict().items()}
    save_file(state | {"head.weight": torch.zeros(10, 24), "head.bias": torch.zeros(10)}, path)
    source = EncoderSource(network=path, release=ReleaseHints(encoder_heads=2))
    with torch.no_grad():
        (found,) = open_encoder(source).encoder.maps(IMAGES, (4,))
    torch.testing.assert_close(found, vit.maps(IMAGES, (4,))[0])
    with pytest.raises(MidwayError, match="only an encoder and has no backward features"):
        open_encoder(EncoderSource(network=path, features="backward"))
    save_file(state | {"blocks.0.attn.bias_table": torch.ones(24)}, path)
    with pytest.raises(MidwayError, match=r"1 unknown .*blocks.0.attn.bias_table.* timm:NAME"):
        open_encoder(source)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(MidwayError, match="nor tensors of a known ViT or ResNet"):
        open_encoder(source)


def test_a_file_of_a_resnet_with_torchvisions_names_is_read_without_its_classifier(tmp_path):
    encoder = ResNet(RESNET)
    path = str(tmp_path / "resnet.safetensors")
    save_file({**encoder.state_dict(), "fc.weight": torch.zeros(10, 128)}, path)
    found = load_encoder(path)
    assert found.config == RESNET
    assert same(found, encoder)


def test_damaged_descriptions_are_told_in_one_line(run):
    folder, _ = run
    path = next(folder.glob("checkpoints/*.ckpt"))
    content = torch.load(path, weights_only=True)
    for spoiled, message in (
        (3, "encoders is a int, not a dict"),
        ({"student": {"kind": "vit"}}, "student: 'config' is missing"),
        ({"student": {"kind": "vit", "config": {}, "prefix": "student."}}, "of another shape"),
        ({"student": {"kind": "vit", "config": {}, "prefix": "head."}}, "missing .*, ...\\)"),
    ):
        torch.save(content | {"encoders": spoiled}, path)
        with pytest.raises(MidwayError, match=message) as caught:
            load_encoder(str(folder))
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def test_the_state_of_an_encoder_goes_into_one_of_the_same_sizes_only(run):
    folder, objective = run
    like = ResNet(RESNET)
    like.load_state_dict(encoder_state(str(folder), like))
    assert same(like, objective.teacher)
    with pytest.raises(MidwayError, match="its encoder has other sizes"):
        encoder_state(str(folder), VisionTransformer(ENCODER))
