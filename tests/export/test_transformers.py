"""Our ViT in transformers: the same features, through a folder and back."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import midway
from midway.errors import MidwayError
from midway.models.encoders.resnet import ResNet, ResNetConfig
from midway.models.encoders.vit import VisionTransformer
from tests.models.networks import ENCODER

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_features_are_equal_through_a_folder_and_back(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    encoder = VisionTransformer(ENCODER).eval()
    for parameter in encoder.parameters():
        parameter.normal_(std=0.2)
    expected = encoder.levels(IMAGES, (-1,))[0]
    model = midway.to_transformers(encoder)
    torch.testing.assert_close(model(IMAGES).last_hidden_state, expected, atol=1e-4, rtol=1e-4)
    model.save_pretrained(tmp_path)
    read = transformers.AutoModel.from_pretrained(tmp_path, add_pooling_layer=False)
    torch.testing.assert_close(read(IMAGES).last_hidden_state, expected, atol=1e-4, rtol=1e-4)
    back = midway.load_encoder(str(tmp_path))
    torch.testing.assert_close(back.maps(IMAGES, (-1,)), encoder.maps(IMAGES, (-1,)))


@pytest.mark.parametrize(
    "encoder",
    [VisionTransformer(replace(ENCODER, num_registers=2)), ResNet(ResNetConfig())],
    ids=["registers", "resnet"],
)
def test_encoders_that_it_has_no_place_for_are_refused(encoder) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    with pytest.raises(MidwayError, match=r"ViTModel has no place for this .*; give a ViT with"):
        midway.to_transformers(encoder)


def test_without_transformers_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MidwayError, match=r"pip install 'midway-network\[transformers\]'"):
        midway.to_transformers(VisionTransformer(ENCODER))
