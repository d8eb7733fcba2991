"""What a file says of an encoder is enough to build it again, whatever its kind."""

import json

import pytest
import torch
from torch import nn

from midway.errors import MidwayError
from midway.methods.croco import CrocoConfig
from midway.methods.videomae import VideoMaeConfig
from midway.models.encoders.backward import BackwardEncoder
from midway.models.encoders.base import PACKAGE, EncoderSpec, describe, recognise
from midway.models.encoders.croco import CrocoEncoder
from midway.models.encoders.poodle import SpatialDecoder, SpatialDecoderConfig
from midway.models.encoders.resnet import ResNet, ResNetConfig
from midway.models.encoders.timm import TimmEncoder
from midway.models.encoders.videomae import VideoMaeEncoder
from midway.models.encoders.vit import VisionTransformer
from midway.models.encoders.vjepa import VJepaConfig, VJepaEncoder
from midway.registry import available, find
from tests.models.encoders.fake_timm import install_timm
from tests.models.networks import ENCODER, random_network

SMALL_RESNET = ResNetConfig(blocks=(1, 1, 1, 1), width=4)
VJEPA = VJepaConfig(image_size=(32, 32), patch_size=8, width=24, depth=4, heads=2)
IMAGES = torch.randn(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def encoders(monkeypatch):
    """One of each kind."""
    install_timm(monkeypatch)
    network = random_network()
    return {
        "vit": VisionTransformer(ENCODER),
        "vjepa": VJepaEncoder(VJEPA),
        "resnet": ResNet(SMALL_RESNET),
        "timm": TimmEncoder("vit_tiny", pretrained=True),
        "poodle": SpatialDecoder(SpatialDecoderConfig(resnet=SMALL_RESNET)),
        "backward": BackwardEncoder(network.encoder, network.dynamics),
        "croco": CrocoEncoder(CrocoConfig.tiny().encoder),
        "videomae": VideoMaeEncoder(VideoMaeConfig.tiny().encoder),
    }


def test_each_kind_is_built_again_from_what_json_holds_of_it(encoders):
    assert {*encoders} == {*available(PACKAGE)}
    module = nn.ModuleDict({"inner": nn.ModuleDict(encoders)})
    specs = json.loads(json.dumps(describe(module, encoders)))
    state = module.state_dict()
    for name, encoder in encoders.items():
        spec = EncoderSpec(**specs[name])
        assert spec.prefix == f"inner.{name}."
        again = spec.build(where="test")
        mine = {
            n.removeprefix(spec.prefix): t for n, t in state.items() if n.startswith(spec.prefix)
        }
        again.load_state_dict(mine)
        levels = (1, -1)
        sizes = [(each.width, each.depth, each.stride) for each in (again, encoder)]
        assert sizes[0] == sizes[1]
        assert again.config == encoder.config
        with torch.no_grad():
            one, two = (each.eval().maps(IMAGES, levels) for each in (encoder, again))
        assert all(map(torch.equal, one, two))


def test_maps_have_the_widths_and_strides_that_they_are_said_to_have(encoders):
    for encoder in encoders.values():
        levels = (1, 2, -1)
        with torch.no_grad():
            maps = encoder.eval().maps(IMAGES, levels)
        for each, width, stride in zip(
            maps, encoder.widths(levels), encoder.strides(levels), strict=True
        ):
            assert each.shape == (1, width, 32 // stride, 64 // stride)


def test_the_kind_of_an_encoder_is_the_name_of_its_file(encoders):
    for name in available(PACKAGE):
        kind = find(PACKAGE, name).ENCODER
        assert kind.kind == name
        assert isinstance(encoders[name], kind)


def test_tensors_tell_the_kind_and_the_sizes_of_a_vit_and_a_resnet(encoders):
    for name in ("vit", "resnet"):
        spec = recognise(encoders[name].state_dict(), heads=ENCODER.heads)
        assert spec.kind == name
        built = spec.build(where="test")
        built.load_state_dict(encoders[name].state_dict())
    assert recognise({"weight": torch.zeros(2)}) is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (EncoderSpec(kind="vgg", config={}), "net.ckpt: encoders: no 'vgg'; there are backward"),
        (EncoderSpec(kind="vit", config={"widht": 3}), "net.ckpt: .*did you mean 'width'"),
        (EncoderSpec(kind="vit", config={"depth": 0}), "net.ckpt: encoder: depth 0 is too small"),
    ],
)
def test_what_cannot_be_built_is_told_with_the_file(spec, message):
    with pytest.raises(MidwayError, match=message):
        spec.build(where="net.ckpt")
