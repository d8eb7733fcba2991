"""Features without training: random filter energies and colour histograms of patches."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.evals.probes.baselines import (
    ColourHistograms,
    FilterEnergies,
    PatchFeaturesConfig,
    baselines,
)
from midway.nn.images import normalise

IMAGES = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))
PLAIN = PatchFeaturesConfig(patch_size=8)


def test_energies_are_the_mean_absolute_responses_of_a_loop():
    encoder = FilterEnergies(PLAIN, count=3)
    (found,) = encoder.maps(IMAGES, (-1,))
    padded = F.pad(IMAGES, [3] * 4)
    expected = np.zeros((2, 3, 3, 4))
    for row in range(0, 24, 2):
        for column in range(0, 32, 2):
            window = padded[:, :, row : row + 7, column : column + 7]
            response = torch.einsum("bchw,fchw->bf", window, encoder.filters).abs()
            expected[:, :, row // 8, column // 8] += response.numpy() / 16
    np.testing.assert_allclose(found.numpy(), np.log1p(expected), atol=1e-5)


def test_filters_have_no_mean_and_differ_between_seeds():
    first, again, other = (FilterEnergies(PLAIN, seed=seed).filters for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.testing.assert_close(first.sum((1, 2, 3)), torch.zeros(96), atol=1e-5, rtol=0)


def test_wider_features_are_means_over_neighbouring_patches():
    narrow, wide = (
        FilterEnergies(PatchFeaturesConfig(around=around), count=2) for around in (0, 1)
    )
    (each,), (mean,) = narrow.maps(IMAGES, (-1,)), wide.maps(IMAGES, (-1,))
    centre = each.expm1()[:, :, :3, 1:4].mean((2, 3)).log1p()
    torch.testing.assert_close(mean[:, :, 1, 2], centre)


def test_histograms_count_the_colours_of_a_patch():
    encoder = ColourHistograms(PLAIN, bins=4)
    images = torch.full((1, 3, 8, 16), 0.1)
    images[:, 0, :, 4:8] = 0.9  # the right half of the first patch is red
    (found,) = encoder.maps(normalise(images), (-1,))
    assert found.shape == (1, 64, 1, 2)
    assert found[0, 0, 0].tolist() == [0.5, 1.0]
    assert found[0, 3 * 16, 0].tolist() == [0.5, 0.0]
    torch.testing.assert_close(found.sum(1), torch.ones(1, 1, 2))


@pytest.mark.parametrize("name", baselines(8))
def test_baselines_are_encoders_of_one_level_that_cannot_be_finetuned(name):
    encoder = baselines(8)[name]
    maps = encoder.maps(IMAGES, (1, -1))
    assert [each.shape for each in maps] == [(2, encoder.width, 3, 4)] * 2
    with pytest.raises(MidwayError, match="levels 1 to 1"):
        encoder.maps(IMAGES, (2,))
    with pytest.raises(MidwayError, match="no blocks"):
        encoder.set_drop_path(0.1)
