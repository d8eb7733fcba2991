"""Features in windows are those of crops cut one by one, also at borders; the readout uses them."""

import pytest
import torch
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.evals.probes.baselines import FilterEnergies, PatchFeaturesConfig, PixelPatches
from midway.evals.probes.linear import as_input, linear_segmentation
from midway.evals.probes.windows import window_classes, window_features
from midway.models.encoders.croco import CrocoEncoder, CrocoEncoderConfig
from midway.models.encoders.vit import VisionTransformer
from midway.models.vit_config import EncoderConfig

STRIDE, SIDE = 8, 32
CROCO = CrocoEncoderConfig(patch_size=STRIDE, width=24, depth=2, heads=2)


@pytest.fixture(scope="module")
def encoder() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(EncoderConfig.tiny()).eval()


def images(count: int, height: int = 32, width: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (count, height, width, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def test_features_are_those_of_crops_cut_one_by_one(encoder):
    shown = images(2)
    found = window_features(encoder, shown, SIDE)
    assert found.shape == (2, 4, 5, 3 * encoder.width)
    x = F.pad(as_input(shown, encoder), (12, 12, 12, 12), mode="reflect")
    for number, row, column in ((0, 0, 0), (0, 3, 4), (1, 1, 2)):
        top, left = STRIDE * row, STRIDE * column
        with torch.no_grad():
            (tokens,) = encoder.levels(
                x[number : number + 1, :, top : top + SIDE, left : left + SIDE], (-1,)
            )
        middle = tokens[0, [6, 7, 10, 11]].mean(0)  # class token, then rows of four patches
        expected = torch.cat([tokens[0, 0], tokens[0, 1:].mean(0), middle])
        torch.testing.assert_close(found[number, row, column], expected, atol=1e-5, rtol=1e-4)


def test_an_encoder_without_class_token_has_mean_and_middle():
    filters = FilterEnergies(PatchFeaturesConfig(patch_size=STRIDE), seed=0)
    found = window_features(filters, images(1), SIDE)
    assert found.shape == (1, 4, 5, 2 * filters.width)


@pytest.mark.parametrize("kind", ["vit", "croco"])
def test_without_class_token_all_encoders_have_mean_and_middle(encoder, kind):
    torch.manual_seed(0)
    one = encoder if kind == "vit" else CrocoEncoder(CROCO).eval()
    found = window_features(one, images(1), SIDE, class_token=False)
    assert found.shape == (1, 4, 5, 2 * one.width)
    torch.testing.assert_close(found, window_features(one, images(1), SIDE)[..., -2 * one.width :])


def test_windows_read_classes_that_a_patch_does_not_show():
    # Grey patches below a strip whose brightness is their class; pixels know their own patch only.
    shown = torch.full((12, 32, 32, 3), 128, dtype=torch.uint8)
    shown[::2, :8], shown[1::2, :8] = 255, 0
    classes = (torch.arange(12) % 2)[:, None, None].expand(12, 32, 32)
    data = (shown[:8], classes[:8]), (shown[8:], classes[8:])
    pixels = PixelPatches(PatchFeaturesConfig(patch_size=STRIDE))
    whole = linear_segmentation(pixels, *data, 2)[1]
    found = window_classes(pixels, *data, 2, side=SIDE)
    assert found.shape == (4, 32, 32)
    assert (found[:, 10:14] == classes[8:, 10:14]).all()
    assert (whole[:, 10:14] != classes[8:, 10:14]).any()


@pytest.mark.parametrize(
    ("size", "side", "message"),
    [
        ((32, 40), 0, "windows of 0 pixels: have no four patches in their middle; give 16 or"),
        ((32, 40), 8, "windows of 8 pixels: have no four"),
        ((32, 40), 40, "windows of 40 pixels: have no four"),
        ((32, 40), 80, "windows of 80 pixels: are too large for images of 32x40; give less"),
        ((30, 40), 32, "image of 30x40 pixels: sides must be multiples"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(encoder, size, side, message):
    with pytest.raises(MidwayError, match=message):
        window_features(encoder, images(1, *size), side)


def test_an_odd_patch_keeps_all_rows():
    filters = FilterEnergies(PatchFeaturesConfig(patch_size=5), seed=0)
    assert window_features(filters, images(1, 30, 40), 20).shape[1:3] == (6, 8)
