"""Feature maps in timm's form: the same arguments give the same shapes and values."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from midway.errors import MidwayError
from midway.models.encoders.resnet import ResNet, ResNetConfig
from midway.models.encoders.timm import TimmEncoder
from midway.models.encoders.videomae import VideoMaeEncoder, VideoMaeEncoderConfig
from midway.models.encoders.vit import VisionTransformer
from tests.models.encoders.fake_timm import install_timm
from tests.models.networks import ENCODER

IMAGES = torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(0))
SQUARE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
ARGUMENTS = (
    {},
    {"indices": 2},
    {"indices": [-1, 0], "norm": True, "intermediates_only": True},
    {"indices": [1], "stop_early": True},
    {"indices": (0, 2), "output_fmt": "NLC", "return_prefix_tokens": True},
    {"indices": [1], "return_prefix_tokens": True, "intermediates_only": True, "norm": True},
)


def vit(**changes):
    torch.manual_seed(0)
    return VisionTransformer(replace(ENCODER, **changes)).eval()


@torch.no_grad()
def test_maps_are_the_blocks_of_the_encoder():
    encoder = vit(num_registers=2)
    final, maps = encoder.forward_intermediates(IMAGES, return_prefix_tokens=True)
    assert final.shape == (2, 1 + 2 + 15, 24)
    assert [(each.shape, prefix.shape) for each, prefix in maps] == [
        ((2, 24, 3, 5), (2, 3, 24))
    ] * 4
    last, prefix = maps[-1]
    tokens = torch.cat([prefix, last.flatten(2).mT], dim=1)
    torch.testing.assert_close(encoder.norm(tokens), final)
    normed = encoder.forward_intermediates(IMAGES, [0, -1], norm=True, intermediates_only=True)
    torch.testing.assert_close(normed, encoder.maps(IMAGES, (1, 4)))


@torch.no_grad()
def test_the_final_output_of_an_early_stop_is_that_of_the_highest_index():
    encoder = vit()
    final, (only,) = encoder.forward_intermediates(IMAGES, [1], stop_early=True, output_fmt="NLC")
    torch.testing.assert_close(final[:, 1:], encoder.norm(only))
    final, _ = encoder.forward_intermediates(IMAGES, [1])
    torch.testing.assert_close(final, encoder.levels(IMAGES, (4,))[0])


@torch.no_grad()
def test_other_encoders_have_the_form_too(monkeypatch):
    install_timm(monkeypatch)
    of_timm = TimmEncoder("vit_tiny", pretrained=True)
    maps = of_timm.forward_intermediates(
        IMAGES, indices=[1, 3], norm=True, output_fmt="NCHW", intermediates_only=True
    )
    torch.testing.assert_close(maps, of_timm.maps(IMAGES, (2, 4)))
    resnet = ResNet(ResNetConfig()).eval()
    final, maps = resnet.forward_intermediates(SQUARE, [0, 1])
    assert [each.shape[1] for each in (*maps, final)] == [256, 512, 2048]
    config = VideoMaeEncoderConfig(image_size=(32, 32), patch_size=8, width=24, depth=2, heads=2)
    video = VideoMaeEncoder(config).eval()
    (found,) = video.forward_intermediates(SQUARE, 1, norm=True, intermediates_only=True)
    torch.testing.assert_close(found, video.maps(SQUARE, (2,))[0])
    with pytest.raises(MidwayError, match=r"a videomae has no prefix tokens.*norm=True; give that"):
        video.forward_intermediates(SQUARE)


def test_what_does_not_exist_is_refused():
    for indices in ([4], [-5], 5, []):
        with pytest.raises(MidwayError, match="the encoder has blocks 0 to 3"):
            vit().forward_intermediates(IMAGES, indices)
    with pytest.raises(MidwayError, match="output_fmt 'NHWC': unknown"):
        vit().forward_intermediates(IMAGES, output_fmt="NHWC")


@pytest.mark.parametrize("arguments", ARGUMENTS)
@torch.no_grad()
def test_our_encoder_in_timm_returns_the_same(arguments):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    encoder = vit()
    loaded = timm.models.VisionTransformer(
        img_size=encoder.image_size,
        patch_size=encoder.stride,
        embed_dim=encoder.width,
        depth=encoder.depth,
        num_heads=encoder.config.heads,
        num_classes=0,
        norm_layer=partial(nn.LayerNorm, eps=encoder.config.norm_eps),
    ).eval()
    loaded.load_state_dict(encoder.state_dict())
    found = encoder.forward_intermediates(SQUARE, **arguments)
    expected = loaded.forward_intermediates(SQUARE, **arguments)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(encoder(SQUARE), loaded(SQUARE), atol=1e-5, rtol=1e-4)
