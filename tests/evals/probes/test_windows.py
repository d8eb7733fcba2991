"""Features in windows are those of crops cut one by one, also at borders; the readout uses them."""

import pytest
import torch
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.evals.probes.baselines import FilterEnergies, PatchFeaturesConfig
from midway.evals.probes.linear import as_input
from midway.evals.probes.windows import window_classes, window_features
from midway.models.encoders.vit import VisionTransformer
from midway.models.vit_config import EncoderConfig

STRIDE, SIDE = 8, 32


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


def test_classes_that_need_the_surroundings_are_read_from_windows(encoder):
    # Grey patches whose class is the brightness of the frame's border around them.
    shown = torch.full((12, 32, 32, 3), 128, dtype=torch.uint8)
    shown[::2, :8], shown[1::2, :8] = 255, 0
    classes = (torch.arange(12) % 2)[:, None, None].expand(12, 32, 32)
    data = (shown[:8], classes[:8]), (shown[8:], classes[8:])
    found = window_classes(encoder, *data, 2, side=SIDE)
    assert found.shape == (4, 32, 32)
    assert (found[:, 8:16] == classes[8:, 8:16]).all()


@pytest.mark.parametrize("side", [0, 8, 40])
def test_a_side_that_has_no_middle_is_refused(encoder, side):
    with pytest.raises(MidwayError, match=f"windows of {side} pixels: give a multiple of 16"):
        window_features(encoder, images(1), side)
