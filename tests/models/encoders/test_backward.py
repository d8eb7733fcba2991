"""Backward features are those of the dynamics, laid out as the image is."""

import pytest
import torch

from midway.errors import MidwayError
from midway.models.encoders.backward import BackwardEncoder
from tests.models.networks import random_network

IMAGES = torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(0))


def network(**dynamics):
    torch.manual_seed(0)
    return random_network(**dynamics)


def test_backward_features_of_the_student_are_those_of_its_dynamics():
    net = network()
    found = net(IMAGES, IMAGES).levels
    maps = BackwardEncoder(net.encoder, net.dynamics).maps(IMAGES, (1, 2, 3, 4))
    for level in (1, 2, 3):
        expected = found[level].source_backward[:, 1:].unflatten(1, (3, 5)).permute(0, 3, 1, 2)
        torch.testing.assert_close(maps[level - 1], expected)
    torch.testing.assert_close(maps[3], net.encoder.maps(IMAGES, (4,))[0])


def test_backward_features_of_the_teacher_are_those_of_the_target():
    net = network()
    found = net(IMAGES, IMAGES).levels
    (level_map,) = BackwardEncoder(net.teacher.encoder, net.teacher).maps(IMAGES, (1,))
    expected = found[1].target_backward[:, 1:].unflatten(1, (3, 5)).permute(0, 3, 1, 2)
    torch.testing.assert_close(level_map, expected)


def test_backward_features_that_there_are_not_are_refused():
    net = network(levels=(1, 3))
    encoder = BackwardEncoder(net.encoder, net.dynamics)
    with pytest.raises(MidwayError, match="backward features at 1, 3, 4; choose from those"):
        encoder.maps(IMAGES, (2,))
    with pytest.raises(MidwayError, match="cannot be finetuned"):
        encoder.set_drop_path(0.1)
    without = network(backward_layers=False)
    with pytest.raises(MidwayError, match="trained without backward layers"):
        BackwardEncoder(without.encoder, without.dynamics)
