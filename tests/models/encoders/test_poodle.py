"""The spatial decoder: sizes, a slow forward pass, its levels, and a ViT in place of the ResNet."""

import pytest
import torch
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.models.encoders.base import recognise
from midway.models.encoders.poodle import SpatialDecoder, SpatialDecoderConfig
from midway.models.encoders.resnet import ResNetConfig
from midway.models.encoders.vit import EncoderConfig

SMALL = SpatialDecoderConfig(resnet=ResNetConfig(blocks=(1, 1, 1, 1), width=4), factor=0.5)
VIT = SpatialDecoderConfig(
    backbone="vit",
    vit=EncoderConfig(image_size=(64, 64), patch_size=16, width=32, depth=3, heads=2, drop_path=0),
    laterals=(2,),
)


@pytest.mark.parametrize(("factor", "millions"), [(1.0, 12.08), (0.5, 6.44)])
def test_a_decoder_has_the_parameters_of_the_published_ones(factor: float, millions: float):
    with torch.device("meta"):
        encoder = SpatialDecoder(SpatialDecoderConfig(factor=factor))
    counts = {
        name: sum(p.numel() for p in part.parameters()) for name, part in encoder.named_children()
    }
    assert counts["backbone"] == 23_508_032
    assert (counts["blocks"] + counts["laterals"]) / 1e6 == pytest.approx(millions, abs=0.005)
    assert (encoder.width, encoder.depth, encoder.stride) == (2048, 5, 32)
    assert encoder.widths((2, 4, 5)) == [512, 2048, 2048]
    assert encoder.strides((2, 4, -1)) == [8, 32, 8]


def test_the_decoded_map_agrees_with_a_slow_forward_pass():
    torch.manual_seed(0)
    encoder = SpatialDecoder(SMALL).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        second, third, top, decoded, again = encoder.maps(images, (2, 3, 4, -1, 3))
        x = top
        for block, lateral, finer in zip(
            encoder.blocks, encoder.laterals, (third, second), strict=True
        ):
            y = block.bn1(F.conv2d(x, block.conv1.weight)).relu()
            y = block.bn2(F.conv2d(y, block.conv2.weight, padding=1)).relu()
            y = (block.bn3(F.conv2d(y, block.conv3.weight)) + x).relu()
            up = F.interpolate(y, scale_factor=2, mode="bilinear")
            x = up + torch.einsum("oi,bihw->bohw", lateral.weight[:, :, 0, 0], finer)
            x = x + lateral.bias[:, None, None]
    torch.testing.assert_close(decoded, x, rtol=1e-4, atol=1e-5)
    assert decoded.shape == (2, 128, 8, 12)
    assert torch.equal(third, again)
    torch.testing.assert_close(encoder(images), top.mean((2, 3)))


def test_a_vit_serves_as_the_backbone():
    torch.manual_seed(0)
    encoder = SpatialDecoder(VIT)
    images = torch.randn(2, 3, 64, 96)
    top, decoded = encoder.maps(images, (3, 4))
    assert top.shape == (2, 32, 4, 6)
    assert decoded.shape == (2, 32, 8, 12)
    assert encoder.strides((1, -1)) == [16, 8]
    decoded.sum().backward()
    assert all(p.grad is not None for p in encoder.laterals.parameters())


def test_layers_for_layer_decay_put_the_decoder_above_the_backbone():
    encoder = SpatialDecoder(SMALL)
    assert encoder.layer_of("backbone.conv1.weight") == 0
    assert encoder.layer_of("backbone.layer4.0.conv1.weight") == 4
    assert encoder.layer_of("laterals.0.weight") == encoder.layer_of("blocks.1.bn1.bias") == 5
    encoder.set_drop_path(0.0)
    with pytest.raises(MidwayError, match="no stochastic depth"):
        encoder.set_drop_path(0.1)


def test_tensors_tell_the_sizes():
    spec = recognise(SpatialDecoder(SMALL).state_dict())
    assert spec is not None
    assert spec.kind == "poodle"
    assert spec.build(where="test").config == SMALL


def test_a_decoder_without_laterals_or_channels_is_refused():
    with pytest.raises(MidwayError, match="laterals is empty"):
        SpatialDecoderConfig(laterals=())
    with pytest.raises(MidwayError, match="factor = 0"):
        SpatialDecoderConfig(factor=0.0)
