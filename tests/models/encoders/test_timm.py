"""Models of timm as encoders: their colours, tokens and pooling."""

import sys

import pytest
import torch

from midway.errors import MidwayError
from midway.models.encoders.timm import TimmEncoder
from midway.models.encoders.vit import VisionTransformer
from midway.models.weights.sources import EncoderSource, encoder_state, open_encoder
from tests.models.encoders.fake_timm import install_timm
from tests.models.networks import ENCODER

IMAGES = torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def fake_timm(monkeypatch):
    return install_timm(monkeypatch)


def test_a_model_of_timm_is_read_in_its_own_colours(fake_timm):
    opened = open_encoder(EncoderSource(network="timm:vit_tiny"))
    assert fake_timm == [("vit_tiny", True, 0, True)]
    encoder = opened.encoder
    assert (encoder.width, encoder.depth, encoder.stride) == (24, 4, 8)
    pixels = torch.rand(2, 3, 24, 40)
    mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    def normalised(mean, std):
        return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    maps = encoder.maps(normalised(mean, std), (4, 2))
    own = normalised((0.5, 0.5, 0.5), (0.5, 0.4, 0.5))
    expected = encoder.model.inner[0].maps(own, (4, 2))
    torch.testing.assert_close(maps, expected, atol=1e-4, rtol=1e-4)
    assert encoder.layer_of("model.blocks.2.mlp.fc1.weight") == 3
    # Those of timm's models that ours have not.
    assert [encoder.layer_of(f"model.{name}") for name in ("dist_token", "norm_pre.bias")] == [0, 0]
    encoder.set_drop_path(0.3)
    rates = [block.drop_path2.p for block in encoder.model.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])
    open_encoder(EncoderSource(network="timm:vit_tiny", untrained=True))
    assert fake_timm[-1] == ("vit_tiny", False, 0, True)


def test_a_model_of_timm_gives_a_class_token_and_its_patches(fake_timm):
    encoder = TimmEncoder("vit_tiny", pretrained=True)
    own = encoder.recolour(IMAGES)
    expected = encoder.model.inner[0].levels(own, (4, 2))
    torch.testing.assert_close(encoder.levels(IMAGES, (4, 2)), expected)
    # Registers alone are no class token.
    encoder.model.cls_token = None
    for tokens, theirs in zip(encoder.levels(IMAGES, (4, 2)), expected, strict=True):
        torch.testing.assert_close(tokens[:, 1:], theirs[:, 1:])
        torch.testing.assert_close(tokens[:, 0], theirs[:, 1:].mean(dim=1))
    assert encoder.sizes == ENCODER


def test_a_model_of_timm_loses_its_pooling_but_not_the_norm_behind_it(fake_timm):
    encoder = TimmEncoder("vit_tiny_avg", pretrained=True)
    (tokens,) = encoder.levels(IMAGES, (4,))
    plain = TimmEncoder("vit_tiny", pretrained=True)
    torch.testing.assert_close(tokens, plain.levels(IMAGES, (4,))[0])
    tokens.square().sum().backward()
    names = [name for name, p in encoder.named_parameters() if p.grad is None]
    assert not names


def test_timm_models_that_cannot_serve_are_told(fake_timm):
    with pytest.raises(MidwayError, match=r"timm:vit_x cannot be made: Unknown model \(vit_x\)"):
        open_encoder(EncoderSource(network="timm:vit_x"))
    with pytest.raises(MidwayError, match="not a plain vision transformer"):
        open_encoder(EncoderSource(network="timm:resnet"))
    with pytest.raises(MidwayError, match="has no backward features"):
        open_encoder(EncoderSource(network="timm:vit_tiny", features="backward"))


def test_weights_for_other_colours_start_an_encoder_for_imagenets(fake_timm):
    encoder = VisionTransformer(ENCODER).eval()
    encoder.load_state_dict(encoder_state("timm:vit_tiny", like=encoder))
    timm = open_encoder(EncoderSource(network="timm:vit_tiny")).encoder
    with torch.no_grad():
        (found,), (expected,) = (each.maps(IMAGES, (4,)) for each in (encoder, timm))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_missing_timm_is_told_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        MidwayError, match=r"needs timm .*; pip install timm torch==\d[.\d]*, as pip"
    ):
        open_encoder(EncoderSource(network="timm:vit_small_patch16_224"))
