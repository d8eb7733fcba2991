"""Pictures of a batch: what is drawn where, whole patches, and heat where the maximum is."""

import numpy as np
import torch

from midway.analysis.perturbation import perturbation_heatmaps
from midway.analysis.pictures import to_bytes
from midway.analysis.training_pictures import SHOWN, feature_picture, heatmap_picture
from tests.models.networks import random_network


def test_features_stand_below_their_images_in_whole_patches():
    torch.manual_seed(0)
    network = random_network()
    images = torch.randn(3, 3, 32, 40)
    picture = feature_picture(network.encoder, images)
    assert picture.shape == (64, 120, 3)
    for number, image in enumerate(to_bytes(images)):
        np.testing.assert_array_equal(picture[:32, 40 * number : 40 * number + 40], image)
    patches = picture[32:].reshape(4, 8, 15, 8, 3)
    assert (patches == patches[:, :1, :, :1]).all()
    assert len(np.unique(patches[:, 0, :, 0].reshape(-1, 3), axis=0)) > 30


def test_no_more_than_a_few_images_are_drawn():
    picture = feature_picture(random_network().encoder, torch.randn(SHOWN + 3, 3, 16, 16))
    assert picture.shape == (32, 16 * SHOWN, 3)


def test_a_heatmap_is_brightest_where_its_cosine_is_highest():
    torch.manual_seed(0)
    network = random_network()
    source, target = torch.randn(2, 2, 3, 32, 32)
    target = target.zero_()  # one grey, so that what is coloured is heat
    picture = heatmap_picture(network, source, target).astype(int)
    assert picture.shape == (64, 64, 3)
    # The central patch is framed in green in the sources.
    green = (picture[:32] == (0, 224, 0)).all(2)
    assert green.sum() == 2 * (4 * 8 - 4)
    assert green[16:24, 16:24].sum() == 4 * 8 - 4
    maps = perturbation_heatmaps(network, source, target, level=3, tokens=[2 * 4 + 2])[:, 0]
    for number, heat in enumerate(maps):
        drawn = picture[32:, 32 * number : 32 * number + 32]
        colourful = (drawn.max(2) - drawn.min(2)).reshape(4, 8, 4, 8).mean((1, 3))
        row, column = divmod(int(heat.argmax()), 4)
        assert colourful[row, column] > np.median(colourful)
