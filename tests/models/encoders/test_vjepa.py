from dataclasses import replace

import pytest
import torch

from midway.errors import MidwayError
from midway.models.encoders.vjepa import VJepaConfig, VJepaEncoder

SMALL = VJepaConfig(image_size=(32, 32), patch_size=16, width=24, depth=2, heads=2)


def test_sizes_are_those_of_the_published_vit_b() -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in VJepaEncoder(VJepaConfig()).parameters())
    # ViT-B without class token and position table.
    assert count == 85_798_656 - 768 * 198


def test_maps_come_in_the_order_asked_for_images_of_any_size() -> None:
    encoder = VJepaEncoder(SMALL).eval()
    images = torch.randn(2, 3, 16, 48)
    top, low = encoder.maps(images, (-1, 1))
    assert top.shape == low.shape == (2, 24, 1, 3)
    torch.testing.assert_close(top.mean(1), torch.zeros(2, 1, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.maps(images, (1,))[0], low)


def test_stochastic_depth_and_layers_are_those_of_a_vit() -> None:
    encoder = VJepaEncoder(SMALL)
    encoder.set_drop_path(0.2)
    assert [block.get_submodule("drop_path").p for block in encoder.blocks] == [0.0, 0.2]
    names = ("patch_embed.proj.bias", "blocks.1.mlp.fc1.bias", "top_norm.bias")
    assert [encoder.layer_of(name) for name in names] == [0, 2, 3]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: VJepaEncoder(SMALL).maps(torch.zeros(1, 3, 16, 40), (1,)), "multiples of the"),
        (lambda: VJepaEncoder(SMALL).maps(torch.zeros(1, 3, 16, 16), (3,)), "levels 1 to 2"),
        (lambda: replace(SMALL, heads=5), "an even number of channels"),
        (lambda: replace(SMALL, heads=6), "6 or more"),
        (lambda: VJepaEncoder.read_config(VJepaEncoder(SMALL).state_dict()), "--encoder-heads"),
    ],
)
def test_what_does_not_fit_is_refused(call, message: str) -> None:
    with pytest.raises(MidwayError, match=message):
        call()
